"""Measure how similar windows are by their words, to find hard negatives.

Hard negatives are windows that share words with activating windows but do not activate the feature. They
expose an explanation that is too broad, for example one that names only the topic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caft_utils.interpret.tfidf import TfIdf

if TYPE_CHECKING:
    from caft_utils.chats import Chats


class WordSimilarity:
    """Cosine similarity of windows (token ids) by TF-IDF over the words of `chats`.

    A word is the text of a token in lower case without white space. Special tokens and punctuation are not
    words.
    """

    def __init__(self, chats: Chats):
        special, first_token = set(chats.tokenizer.all_special_ids), {}
        self._word: dict[int, int] = {}  # token -> the first token with the same word
        for token in sorted({token for example in chats for token in example.input_ids}):
            word = chats.tokenizer.decode([token]).strip().lower()
            if token not in special and any(character.isalnum() for character in word):
                self._word[token] = first_token.setdefault(word, token)
        self._tfidf = TfIdf([token for token in self._words(e.input_ids) if token >= 0] for e in chats)

    def _words(self, ids: Sequence[int]) -> list[int]:
        return [self._word.get(token, -1) for token in ids]

    def mean_vectors(self, groups: Sequence[Sequence[Sequence[int]]]) -> Float[Tensor, "terms k"]:
        """Return the mean vector of each of k groups of windows, of length 1, or 0 for an empty group."""
        means = torch.zeros(len(self._tfidf), len(groups))
        for column, windows in enumerate(groups):
            if windows:
                vectors, terms = self.vectors(windows)
                means[terms, column] = vectors.mean(0)
        return means / means.norm(dim=0).clamp(min=1e-6)

    def vectors(self, windows: Sequence[Sequence[int]]) -> tuple[Float[Tensor, "m u"], Int[Tensor, " u"]]:
        """Return the sparse vectors of m windows; see `TfIdf.sparse`."""
        return self._tfidf.sparse([self._words(ids) for ids in windows])
