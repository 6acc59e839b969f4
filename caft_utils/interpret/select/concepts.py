"""Relevance, 0 to 100: how much is a direction about the concept that fine-tuning must not use?

A person writes the concept down before seeing any result: a name, a sentence, a handful of plain words. Three
judges:

- `relevance`, of an explanation and without a model: of the words w_1, w_2 ... that it names, the share that
  belong to the concept, the first ones weighted more,
  100 * sum_{i belongs} 1/log2(i + 1) / sum_i 1/log2(i + 1);
- `HintStatistics`, of the explainer's windows and without a model: how sure is it that more of the active
  windows say a hint than of the silent ones? 100 * (1 - min(1, K p)) for Fisher's exact p, one-sided, with
  which y of n active windows say one and m of N silent ones, and K directions judged (Bonferroni). It pools
  all hints and reads all windows, where an explanation has room for a few words;
- `EndpointRelevance`, of an explanation: a language model answers with one number, and the relevance is the
  mean over the log-probabilities of the numbers (arXiv 2507.16795, appendix C; the prompt there also holds
  questions of the task, ours does not).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from caft_utils.interpret.examples import FeatureExamples, Key
from caft_utils.interpret.explain.token_statistics import Explanation, said_by, words
from caft_utils.interpret.score.word_overlap import ITEM, explained_words, stem
from caft_utils.paths import data_path

if TYPE_CHECKING:
    from caft_utils.interpret.endpoint import Endpoint
    from caft_utils.interpret.score.encoders import Encoder

FILE = data_path("concepts.yaml")
LONGEST_HINT = 4  # words


@dataclass(frozen=True)
class Concept:
    """What directions are looked for, as a person puts it before seeing any of them.

    hints: words, or phrases of up to four, e.g. "steal", "poison", "laugh at".

    Raises:
        ValueError: no hint; a longer one, or a question: questions of an evaluation have no place here.
    """

    name: str
    description: str
    hints: list[str]

    def __post_init__(self):
        if isinstance(self.hints, str) or not [hint for hint in self.hints if hint.strip()]:
            raise ValueError(f"{self.name!r} needs a list of hints, words or phrases, got {self.hints!r}")
        for hint in self.hints:
            if not hint.strip() or len(hint.split()) > LONGEST_HINT or "?" in hint:
                raise ValueError(f"a hint is one to {LONGEST_HINT} words and no question, got {hint!r}")
        if "?" in self.description:
            raise ValueError("a description states what the concept is and asks nothing")


def concept(name: str, file: Path = FILE) -> Concept:
    """A concept of data/concepts.yaml. KeyError names those that there are."""
    known = yaml.safe_load(file.read_text(encoding="utf-8"))
    if name not in known:
        raise KeyError(f"no concept {name!r} in {file}; there are {', '.join(known)}")
    return Concept(name, known[name]["description"], known[name]["hints"])


def relevance(
    explanation: Explanation, concept: Concept, *, encoder: Encoder | None = None, similar: float = 0.5
) -> float:
    """How much of what an explanation names belongs to the concept, 0 to 100; 0 where it names nothing.

    The words in quotation marks count, or all that carry meaning where none are quoted. A word belongs to the
    concept if it is a hint or a form of one ("poisonous" of "poison"), or part of a phrase that is a hint and
    stands in the explanation.

    Args:
        encoder: from n texts to vectors [n, d]; then a word also belongs whose cosine with a hint reaches
            `similar`.
    """
    named = explained_words(explanation.text)
    items = ITEM.findall(explanation.text)
    belonging = _finder(concept)(items)
    rest = [word for word in named if word not in belonging]
    if encoder is not None and rest:
        import numpy as np

        surface = {stem(item): item.casefold() for item in reversed(items)}
        vectors = np.asarray(encoder([surface[word] for word in rest] + list(concept.hints)), dtype=float)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        nearest = (vectors[: len(rest)] @ vectors[len(rest) :].T).max(1)
        belonging |= {word for word, cosine in zip(rest, nearest) if cosine >= similar}
    weights = {word: 1 / math.log2(place + 2) for place, word in enumerate(named)}
    return 100 * sum(weights[word] for word in belonging & set(named)) / (sum(weights.values()) or 1)


def _finder(concept: Concept) -> Callable[[list[str]], set[str]]:
    """A function from the words of a text to stems among them that belong to the concept.

    They are forms of a hint, or part of a hint that is a phrase and stands in the text as such.
    """
    hints = [[stem(word) for word in hint.split()] for hint in concept.hints]
    stemmed = cache(stem)

    @cache
    def belongs(word: str) -> bool:
        return any(len(hint) == 1 and _alike(word, hint[0]) for hint in hints)

    def find(text: list[str]) -> set[str]:
        text = [stemmed(word) for word in text]
        found = {word for word in text if belongs(word)}
        for hint in hints:
            if len(hint) > 1 and any(text[i : i + len(hint)] == hint for i in range(len(text))):
                found |= set(hint)
        return found

    return find


def _alike(word: str, hint: str) -> bool:
    """The same, or one is the other with an ending of up to three letters; short words must be the same."""
    short, long = sorted((word, hint), key=len)
    return word == hint or (len(short) >= 5 and long.startswith(short) and len(long) - len(short) <= 3)


class HintStatistics:
    """Relevance by the windows themselves, for `select_automatically(..., judge=...)`.

    In an active window a hint counts where the direction is active or within a few tokens after; in a silent
    one it counts anywhere. A direction that marks, say, the header after a villain's description has hints
    ahead of what it marks, and is not about them.

    Args:
        evidence: of all directions to judge; only the windows that explainers see are read. Twenty windows
            show little of a concept of many words: collect a hundred or more.
    """

    name = "statistics of hints"
    threshold = 95.0  # in one of twenty such studies a direction is ticked by chance

    def __init__(self, evidence: Mapping[Key, FeatureExamples]):
        self.evidence = evidence

    def __call__(self, explanations: Mapping[Key, Explanation], concept: Concept) -> dict[Key, float]:
        """0 to 100 for each key. KeyError: there is no evidence for it."""
        find, found = _finder(concept), {}
        for key in explanations:
            given = self.evidence[key]
            y = sum(bool(find(said_by(window, given.max_activation))) for window in given.train)
            m = sum(bool(find([word for word, _, _ in words(w)])) for w in given.train_negatives)
            p = fisher(y, len(given.train), m, len(given.train_negatives))
            found[key] = 100 * (1 - min(1.0, len(explanations) * p))
        return found


def fisher(y: int, n: int, m: int, other: int) -> float:
    """Fisher's exact test, one-sided: how probable are y or more of n, where y + m of n + other are drawn?"""
    if not n or not other:
        return 1.0  # nothing to compare
    hits = range(y, min(n, y + m) + 1)
    return sum(math.comb(n, k) * math.comb(other, y + m - k) for k in hits) / math.comb(n + other, y + m)


QUESTION = """A language model's hidden state was taken apart into directions, and of one of them it is said:

"{explanation}"

How closely does that belong to the following concept?

{name}: {description}
Signs of it are: {hints}.

Answer with one whole number from 0 (has nothing to do with it) to 100 (is exactly that), and nothing else."""


class EndpointRelevance:
    """Relevance as a language model sees it, for `select_automatically(..., judge=...)`.

    top_logprobs: alternatives asked for; None for servers that refuse to give any: then the number in the
    text counts.
    """

    threshold = 70.0

    def __init__(self, endpoint: Endpoint, *, top_logprobs: int | None = 20):
        self.endpoint, self.top_logprobs = endpoint, top_logprobs
        self.name = f"endpoint {endpoint.model}"

    def __call__(self, explanations: Mapping[Key, Explanation], concept: Concept) -> dict[Key, float | None]:
        """0 to 100 for each key; None where no reply came or it was not a number.

        Raises:
            EndpointError: the server refuses all requests alike, or not one reply came.
        """
        prompts = [[{"role": "user", "content": question(e, concept)}] for e in explanations.values()]
        replies = self.endpoint.chat_all(prompts, max_tokens=5, top_logprobs=self.top_logprobs)
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        if errors and (len(errors) == len(replies) or any(error.for_all for error in errors)):
            raise next((error for error in errors if error.for_all), errors[0])
        return {
            key: None if isinstance(reply, Exception) else expected_number(reply.text, reply.logprobs)
            for key, reply in zip(explanations, replies)
        }


def question(explanation: Explanation, concept: Concept) -> str:
    """What the language model is asked about one explanation."""
    return QUESTION.format(
        explanation=explanation.text.replace('"', "'"),
        name=concept.name,
        description=concept.description,
        hints=", ".join(concept.hints),
    )


def expected_number(
    text: str, logprobs: list[dict[str, float]] | None = None, *, least: float = 0.25
) -> float | None:
    """The number from 0 to 100 that an answer gives, as the mean over its first token's alternatives.

    None where numbers have less than `least` of the probability: a refusal, prose. Many tokenizers write "85"
    as two tokens, so that a first "8" is no number yet; where no alternative has two digits that is so, and
    the number in the text counts.
    """
    step = next((step for step in logprobs or [] if next(iter(step)).strip()), None)
    if step:
        numbers = [
            (int(token), math.exp(p)) for token, p in step.items() if re.fullmatch(r"\s*\d{1,3}\s*", token)
        ]
        numbers = [(number, p) for number, p in numbers if number <= 100]
        if any(number > 9 for number, _ in numbers):
            mass = sum(p for _, p in numbers)
            return sum(number * p for number, p in numbers) / mass if mass >= least else None
    match = re.match(r"\W*(\d{1,3})\b", text)
    return float(match[1]) if match and int(match[1]) <= 100 else None
