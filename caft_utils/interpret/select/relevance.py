"""Relevance, 0 to 100: how much is a direction about a concept? Two measures that need no model.

- `WordRelevance` reads explanations. An explanation names the words w_1, w_2, ..., and the relevance is the
  share of them that belongs to the concept, with larger weights on the first words, 100 * sum_{i belongs}
  1/log2(i + 1) / sum_i 1/log2(i + 1).
- `HintTestRelevance` reads the explainer's windows. It tests whether hints are more frequent in activating
  windows than in the others, 100 * (1 - min(1, K p)). Here p is the one-sided p-value of Fisher's exact test
  for y of n activating and m of N other windows with a hint, and K is the number of directions judged
  (Bonferroni). It pools all hints over all windows, whereas an explanation has room for only a few words.

`endpoint_relevance` asks a language model instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from caft_utils.features import FeatureKey
from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.explain.token_statistics import Explanation, active_words, window_words
from caft_utils.interpret.score.word_overlap import explained_words
from caft_utils.interpret.select.concepts import Concept, hint_matcher
from caft_utils.interpret.words import WORD_SIGN_OR_MARKUP, stem

if TYPE_CHECKING:
    from caft_utils.interpret.score.encoders import Encoder


class RelevanceFunction(Protocol):
    """Return the relevance of each explanation to a concept, 0 to 100, or None where it failed.

    threshold: the relevance from which a direction is selected by default.
    """

    name: str
    threshold: float

    def __call__(
        self, explanations: Mapping[FeatureKey, Explanation], concept: Concept
    ) -> Mapping[FeatureKey, float | None]: ...


class WordRelevance:
    """Relevance by the words that explanations name, for `select_automatically(..., relevance_fn=...)`.

    Args:
        encoder, min_similarity: as in `word_relevance`.
    """

    name = "relevance of words"
    threshold = 20.0  # reached when a few of the distinctive words are hints

    def __init__(self, encoder: Encoder | None = None, min_similarity: float = 0.5):
        self.encoder, self.min_similarity = encoder, min_similarity

    def __call__(
        self, explanations: Mapping[FeatureKey, Explanation], concept: Concept
    ) -> dict[FeatureKey, float]:
        """Return 0 to 100 for each key."""
        options = {"encoder": self.encoder, "min_similarity": self.min_similarity}
        return {key: word_relevance(each, concept, **options) for key, each in explanations.items()}


def word_relevance(
    explanation: Explanation,
    concept: Concept,
    *,
    encoder: Encoder | None = None,
    min_similarity: float = 0.5,
) -> float:
    """Return the share of the named words that belongs to the concept, 0 to 100; 0 if there is no word.

    The quoted words of the explanation count, or all words except stop words if none is quoted.

    Args:
        encoder: maps n texts to vectors [n, d]. A word then also belongs to the concept if its cosine with a
        hint is at least `min_similarity`.
    """
    named = explained_words(explanation.text)
    items = WORD_SIGN_OR_MARKUP.findall(explanation.text)
    belonging = hint_matcher(concept)(items)
    rest = [word for word in named if word not in belonging]
    if encoder is not None and rest:
        surface = {stem(item): item.casefold() for item in reversed(items)}
        vectors = np.asarray(encoder([surface[word] for word in rest] + list(concept.hints)), dtype=float)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        similarity = (vectors[: len(rest)] @ vectors[len(rest) :].T).max(1)
        belonging |= {word for word, cosine in zip(rest, similarity) if cosine >= min_similarity}
    weights = {word: 1 / math.log2(place + 2) for place, word in enumerate(named)}
    return 100 * sum(weights[word] for word in belonging & set(named)) / (sum(weights.values()) or 1)


class HintTestRelevance:
    """Relevance by a test of hints in windows, for `select_automatically(..., relevance_fn=...)`.

    In an activating window, a hint counts where the direction is active or within a few tokens after it. In
    other windows it counts anywhere. Hints before the activation do not count: a direction may respond to the
    header after a villain's description without being about villains.

    Args:
        examples: examples of all directions to judge. Only the windows that explainers see are read. Collect
            a hundred or more, because twenty windows contain few of a concept's many words.
    """

    name = "statistics of hints"
    threshold = 95.0  # one such study in twenty selects a direction by chance

    def __init__(self, examples: Mapping[FeatureKey, FeatureExamples]):
        self.examples = examples

    def __call__(
        self, explanations: Mapping[FeatureKey, Explanation], concept: Concept
    ) -> dict[FeatureKey, float]:
        """Return 0 to 100 for each key. Raises KeyError for a key without examples."""
        match, relevances = hint_matcher(concept), {}
        for key in explanations:
            one = self.examples[key]
            active = [active_words(window, one.max_activation) for window in one.explainer_windows]
            others = [[word for word, _, _ in window_words(window)] for window in one.explainer_negatives]
            y, m = (sum(bool(match(words)) for words in windows) for windows in (active, others))
            p = fisher_p_value(y, len(active), m, len(others))
            relevances[key] = 100 * (1 - min(1.0, len(explanations) * p))
        return relevances


def fisher_p_value(y: int, n: int, m: int, n_other: int) -> float:
    """Return the one-sided p-value of Fisher's exact test that y of n exceeds m of `n_other`.

    It is 1 where one of the groups is empty.
    """
    from scipy.stats import hypergeom

    return float(hypergeom.sf(y - 1, n + n_other, n, y + m)) if n and n_other else 1.0
