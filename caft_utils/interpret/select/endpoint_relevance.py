"""Relevance of explanations to a concept, 0 to 100, according to a language model on a server.

The model answers with one number, and the relevance is its mean over the log-probabilities of the numbers.
(arXiv 2507.16795, appendix C. The paper's prompt also contains questions of the task; this one does not.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from caft_utils.features import FeatureKey
from caft_utils.interpret.answers import final_text, verdict_probabilities, was_cut_off
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

_NUMBER_ALONE = re.compile(
    r"[\s*_`\"'(\[]*([0-9]{1,3})(?:\.0+)?\s*(?:%|/\s*100|out of 100)?[\s*_`\"')\].!]*", re.I
)


class EndpointRelevance:
    """Relevance according to a language model, for `select_automatically(..., relevance_fn=...)`.

    Args:
        top_logprobs: number of alternatives to request. None for servers that refuse them; the number in the
            text then counts.
    """

    threshold = 70.0

    def __init__(self, endpoint: Endpoint, *, top_logprobs: int | None = 20):
        self.endpoint, self.top_logprobs = endpoint, top_logprobs
        self.name = f"endpoint {endpoint.model}"

    def __call__(
        self, explanations: Mapping[FeatureKey, Explanation], concept: Concept
    ) -> dict[FeatureKey, float | None]:
        """Return 0 to 100 for each key, None where the reply is missing or not a number.

        Raises:
            EndpointError: the server refuses all requests alike, or no request got a reply.
        """
        prompts = [relevance_prompt(explanation, concept) for explanation in explanations.values()]
        replies = replies_or_none(self.endpoint, prompts, max_tokens=5, top_logprobs=self.top_logprobs)
        return {
            key: None if reply is None else expected_number(reply.text, reply.logprobs, finish=reply.finish)
            for key, reply in zip(explanations, replies)
        }


def relevance_prompt(explanation: Explanation, concept: Concept) -> list[dict[str, str]]:
    """Return the prompt of a language model about one explanation, as a conversation."""
    content = RELEVANCE_PROMPT.format(
        explanation=explanation.text.replace('"', "'"),
        name=concept.name,
        description=concept.description,
        hints=", ".join(concept.hints),
    )
    return [{"role": "user", "content": content}]


def expected_number(
    text: str,
    logprobs: list[dict[str, float]] | None = None,
    *,
    finish: str | None = None,
    min_mass: float = 0.25,
) -> float | None:
    """Return the number from 0 to 100 in an answer, as the mean over its first token's alternatives.

    The result is None if the answer is not one number of this scale ("8 out of 10", "-5", "50-60", an
    unfinished thought), or if numbers have less than `min_mass` of the probability, as in a refusal or in
    prose. Many tokenizers split "85" into two tokens, so a first token "8" is ambiguous. If no alternative
    has two digits, the number in the text counts instead.

    Args:
        finish: why the answer ended, as in `Reply`.
    """
    final = final_text(text, finish)
    in_text = _number(final, was_cut_off(finish)) if final else None
    if in_text is None:
        return None
    masses = verdict_probabilities(final, logprobs, _number_token, min_mass=0) or {}
    if not any(number > 9 for number in masses):
        return in_text
    mass = sum(masses.values())
    return sum(number * p for number, p in masses.items()) / mass if mass >= min_mass else None


def _number_token(token: str) -> int | None:
    return int(token) if re.fullmatch(r"[0-9]{1,3}", token) and int(token) <= 100 else None


def _number(text: str, cut_off: bool) -> float | None:
    """Return the number that makes up the first line, optionally followed by a percent sign or "/100"."""
    line, *rest = text.splitlines()
    match = _NUMBER_ALONE.fullmatch(line)
    if not match or int(match[1]) > 100 or (cut_off and not rest and match.end(1) == len(text)):
        return None
    return float(match[1])
