"""TF-IDF vectors of bags of words, for finding hard negatives and for the embedding score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


class TfIdf:
    """Weight of each term, tf * (log((1 + N) / (1 + df)) + 1), fitted on N documents.

    tf is the number of occurrences of the term in a document, df the number of documents that contain it.
    Terms are numbered from 1 in sorted order. Term 0 stands for all terms outside the fitted documents; its
    weight is 0.

    Args:
        documents: bags of terms. Terms must be sortable, for example words or token ids.
        dtype: dtype of the vectors.
    """

    def __init__(self, documents: Iterable[Iterable[Hashable]], dtype: torch.dtype = torch.float32):
        bags = [set(document) for document in documents]
        counts = Counter(term for bag in bags for term in bag)
        self._number = {term: number for number, term in enumerate(sorted(counts), start=1)}
        df = torch.tensor([0, *(counts[term] for term in self._number)], dtype=dtype)
        self._idf: Float[Tensor, " terms"] = ((1 + len(bags)) / (1 + df)).log() + 1
        self._idf[0] = 0

    def __len__(self) -> int:
        """Return the number of terms, with term 0."""
        return len(self._idf)

    def sparse(
        self, documents: Sequence[Sequence[Hashable]]
    ) -> tuple[Float[Tensor, "m u"], Int[Tensor, " u"]]:
        """Return vectors of length 1 (0 without a known term) and the u terms of their entries."""
        numbers = torch.tensor([self._number.get(term, 0) for document in documents for term in document])
        terms, column = numbers.long().unique(return_inverse=True)
        document = torch.arange(len(documents)).repeat_interleave(torch.tensor([len(d) for d in documents]))
        counts = torch.zeros(len(documents), len(terms), dtype=self._idf.dtype)
        counts.index_put_((document, column), torch.ones(len(column), dtype=counts.dtype), accumulate=True)
        weights = counts * self._idf[terms]
        return weights / weights.norm(dim=1, keepdim=True).clamp(min=1e-6), terms

    def dense(self, documents: Sequence[Sequence[Hashable]]) -> Float[Tensor, "m terms"]:
        """Return the same vectors in dense form, with an entry for each term."""
        vectors, terms = self.sparse(documents)
        return vectors.new_zeros(len(documents), len(self)).index_copy_(1, terms, vectors)
