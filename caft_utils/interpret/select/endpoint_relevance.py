"""Relevance of explanations to a concept, 0 to 100, according to a language model on a server.

The model answers with one number, and the relevance is its mean over the log-probabilities of the numbers.
(arXiv 2507.16795, appendix C. The prompt there also holds questions of the task; this one does not.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from caft_utils.features import FeatureKey
from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.replies import replies_or_none
from caft_utils.interpret.select.concepts import Concept

if TYPE_CHECKING:
    from caft_utils.interpret.endpoint import Endpoint

RELEVANCE_PROMPT = """\
A language model's hidden state was taken apart into directions, and of one of them it is said:

"{explanation}"

How closely does that belong to the following concept?

{name}: {description}
Signs of it are: {hints}.

Answer with one whole number from 0 (has nothing to do with it) to 100 (is exactly that), and nothing else."""


class EndpointRelevance:
    """Relevance according to a language model, for `select_automatically(..., relevance_fn=...)`.

    Args:
        top_logprobs: alternatives to ask for; None for servers that refuse them. The number in the text then
            counts.
    """

    threshold = 70.0

    def __init__(self, endpoint: Endpoint, *, top_logprobs: int | None = 20):
        self.endpoint, self.top_logprobs = endpoint, top_logprobs
        self.name = f"endpoint {endpoint.model}"

    def __call__(
        self, explanations: Mapping[FeatureKey, Explanation], concept: Concept
    ) -> dict[FeatureKey, float | None]:
        """Return 0 to 100 for each key; None where no reply came or it was not a number.

        Raises:
            EndpointError: the server refuses all requests alike, or no request got a reply.
        """
        prompts = [relevance_prompt(explanation, concept) for explanation in explanations.values()]
        replies = replies_or_none(self.endpoint, prompts, max_tokens=5, top_logprobs=self.top_logprobs)
        return {
            key: None if reply is None else expected_number(reply.text, reply.logprobs)
            for key, reply in zip(explanations, replies)
        }


def relevance_prompt(explanation: Explanation, concept: Concept) -> list[dict[str, str]]:
    """Return the question to a language model about one explanation, as a conversation."""
    content = RELEVANCE_PROMPT.format(
        explanation=explanation.text.replace('"', "'"),
        name=concept.name,
        description=concept.description,
        hints=", ".join(concept.hints),
    )
    return [{"role": "user", "content": content}]


def expected_number(
    text: str, logprobs: list[dict[str, float]] | None = None, *, min_mass: float = 0.25
) -> float | None:
    """Return the number from 0 to 100 in an answer, as the mean over its first token's alternatives.

    None where numbers have less than `min_mass` of the probability, as in a refusal or in prose. Many
    tokenizers write "85" as two tokens, so a first "8" is not yet the number. Where no alternative has two
    digits, the number in the text counts instead.
    """
    first = next((token for token in logprobs or [] if next(iter(token)).strip()), None)
    if first:
        numbers = [(int(t), math.exp(p)) for t, p in first.items() if re.fullmatch(r"\s*\d{1,3}\s*", t)]
        numbers = [(number, p) for number, p in numbers if number <= 100]
        if any(number > 9 for number, _ in numbers):
            mass = sum(p for _, p in numbers)
            return sum(number * p for number, p in numbers) / mass if mass >= min_mass else None
    match = re.match(r"\W*(\d{1,3})\b", text)
    return float(match[1]) if match and int(match[1]) <= 100 else None
