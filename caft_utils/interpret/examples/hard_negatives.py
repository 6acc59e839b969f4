"""Which windows have the words of given ones: cosines of TF-IDF vectors.

A window is the bag of its words, each weighted by how rare it is: tf * (log((1 + N) / (1 + df)) + 1), where
df of the N rows have the word. Words are the texts of tokens, without case and white space; signs and markup
do not count. Windows that are near in this sense but do not activate a direction are the hard ones: who names
a topic where the direction means something narrower is wrong on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from caft_utils.chats import Chats


class WordSimilarity:
    """TF-IDF over the words of `chats`."""

    def __init__(self, chats: Chats):
        special, words = set(chats.tokenizer.all_special_ids), {}
        rows = [set(example.input_ids) for example in chats]
        used = sorted(set().union(*rows))
        self._term = torch.zeros(used[-1] + 1, dtype=torch.long)  # of each token; term 0 has no weight
        for token in used:
            word = chats.tokenizer.decode([token]).strip().lower()
            if token not in special and any(letter.isalnum() for letter in word):
                self._term[token] = words.setdefault(word, len(words) + 1)
        terms = self._term.tolist()
        found = Counter(term for row in rows for term in {terms[token] for token in row})
        df = torch.tensor([found[term] for term in range(len(words) + 1)])
        self._idf = ((1 + len(rows)) / (1 + df)).log() + 1
        self._idf[0] = 0

    def _vectors(self, windows: Sequence[Sequence[int]]) -> tuple[Float[Tensor, "m u"], Int[Tensor, " u"]]:
        """TF-IDF vectors of length 1 (0 where there is no word), and the terms that the entries stand for."""
        terms, place = self._term[torch.tensor([t for w in windows for t in w])].unique(return_inverse=True)
        window = torch.arange(len(windows)).repeat_interleave(torch.tensor([len(w) for w in windows]))
        counts = torch.zeros(len(windows), len(terms))
        counts.index_put_((window, place), torch.ones(len(place)), accumulate=True)
        weights = counts * self._idf[terms]
        return weights / weights.norm(dim=1, keepdim=True).clamp(min=1e-6), terms

    def towards(self, groups: Sequence[Sequence[Sequence[int]]]) -> Float[Tensor, "terms k"]:
        """The mean direction of each of k groups of windows (token ids), to be given to `cosines`."""
        means = torch.zeros(len(self._idf), len(groups))
        for column, windows in enumerate(groups):
            if windows:
                vectors, terms = self._vectors(windows)
                means[terms, column] = vectors.mean(0)
        return means / means.norm(dim=0).clamp(min=1e-6)

    def cosines(
        self, windows: Sequence[Sequence[int]], means: Float[Tensor, "terms k"]
    ) -> Float[Tensor, "m k"]:
        """Of each window (token ids) with each mean."""
        vectors, terms = self._vectors(windows)
        return vectors @ means[terms]
