"""A window judge without a model: does a window contain words of the explanation, rare words above all?

Each word w of the explanation that occurs in a window is evidence of strength s_w = 1 - df_w / N, the share
of windows without it ("the" proves nothing). A noisy OR joins the evidence:

    p(window) = 1 - prod_w (1 - a_w s_w)

The weight a_w is 1. If tokens are marked (fuzzing), a_w is 1 for marked words only. The words right before a
mark weigh less, because a hidden state also encodes the preceding words. All other words weigh little, and
count only because a mark is read in context. White space belongs to the word after it, as in the tokens of
most models. Words are joined from tokens and compared without case and endings. A word that no window
contains has no influence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import prod

from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.words import STOP_WORDS, WORD_SIGN_OR_MARKUP, locate, stem

QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|«([^»]+)»|`([^`]+)`|(?<!\w)['‘](.+?)['’](?!\w)")
MARK_WEIGHTS = (1.0, 0.5, 0.25)  # for a marked word, and for the first and second word before one
CONTEXT_WEIGHT = 0.05  # for any other word in a window with marks


def explained_words(explanation: str) -> tuple[str, ...]:
    """Return stems of the words that an explanation names: the quoted words, or else all except stop words.

    A quotation of only stop words or punctuation ("you are", "?") names these.
    """
    quotations = ["".join(groups) for groups in QUOTED.findall(explanation)]
    named: dict[str, None] = {}
    for text in quotations or [explanation]:
        items = WORD_SIGN_OR_MARKUP.findall(text)
        words = [item for item in items if item[0].isalnum()]
        content = [word for word in words if word.casefold() not in STOP_WORDS]
        if quotations:
            content = content or words or items
        named.update(dict.fromkeys(map(stem, content)))
    return tuple(named)


class WordOverlap:
    """The deterministic window judge.

    Args:
        reference: texts from which to estimate how common a word is; default: the windows to be judged.
    """

    name = "word overlap"

    def __init__(self, reference: Sequence[str] | None = None):
        self._counts: Counter[str] | None = None
        if reference is not None:
            self._size = len(reference)
            self._counts = Counter(
                word for text in reference for word in set(map(stem, WORD_SIGN_OR_MARKUP.findall(text)))
            )

    def __call__(
        self, explanation: str, windows: Sequence[TextWindow], marked: Sequence[set[int]] | None = None
    ) -> list[float | None]:
        """Return the probability, 0 to 1, that each window (or its marked tokens) fits the explanation."""
        named = set(explained_words(explanation))
        items = [_items(tuple(window.tokens)) for window in windows]
        if self._counts is None:
            counts = Counter(word for row in items for word in {item[0] for item in row} & named)
            size = len(windows)
        else:
            counts, size = self._counts, self._size
        strength = {word: max(0.0, size - counts[word] + 0.5) / (size + 1) for word in named}
        weights = [_weights(row, named, marks) for row, marks in zip(items, marked or [None] * len(items))]
        return [1 - prod(1 - a * strength[word] for word, a in row.items()) for row in weights]


@lru_cache(maxsize=1 << 16)
def _items(tokens: tuple[str, ...]) -> tuple[tuple[str, int, int], ...]:
    """Return words, punctuation and markup of a window as (stem, first token, last token)."""
    items = []
    for match, first, last in locate(WORD_SIGN_OR_MARKUP, tokens):
        while first and not tokens[first - 1].strip():
            first -= 1
        items.append((stem(match[0]), first, last))
    return tuple(items)


def _weights(
    items: Sequence[tuple[str, int, int]], named: set[str], marks: set[int] | None
) -> dict[str, float]:
    """Return the weight a_w of each named word in a window, 0 to 1: the largest if the word is repeated."""
    if marks is None:
        return {word: 1.0 for word, _, _ in items if word in named}
    weights: dict[str, float] = {}
    is_marked = [any(t in marks for t in range(first, last + 1)) for _, first, last in items]
    for i, (word, _, _) in enumerate(items):
        if word in named:
            by_distance = (
                weight
                for ahead, weight in enumerate(MARK_WEIGHTS)
                if i + ahead < len(items) and is_marked[i + ahead]
            )
            weights[word] = max(weights.get(word, 0.0), next(by_distance, CONTEXT_WEIGHT))
    return weights
