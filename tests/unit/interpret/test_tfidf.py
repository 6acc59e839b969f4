"""TF-IDF vectors equal the formula, for any sortable terms."""

from __future__ import annotations

from math import log, sqrt

import pytest
import torch

from caft_utils.interpret.tfidf import TfIdf


def test_vectors_are_the_formula():
    tfidf = TfIdf([["a", "b", "b"], ["b", "c"], ["b"]], dtype=torch.float64)
    idf = {"a": log(4 / 2) + 1, "b": log(4 / 4) + 1, "c": log(4 / 2) + 1}
    length = sqrt((2 * idf["b"]) ** 2 + idf["c"] ** 2)
    vectors = tfidf.dense([["b", "c", "b", "unknown"], ["unknown"], []])
    assert vectors[0].tolist() == pytest.approx([0, 0, 2 * idf["b"] / length, idf["c"] / length])
    assert not vectors[1:].any() and len(tfidf) == 4


def test_sparse_vectors_have_only_terms_that_occur():
    tfidf = TfIdf([[i, i + 1] for i in range(100)])
    documents = [[3, 4, 4], [90, -1]]
    vectors, terms = tfidf.sparse(documents)
    assert vectors.shape == (2, 4)  # one column stands for unknown terms
    torch.testing.assert_close(tfidf.dense(documents)[:, terms], vectors)
    assert tfidf.dense(documents).norm(dim=1).tolist() == pytest.approx([1, 1])
