"""Orthonormal rows: order, span and signs of the given rows, and orthonormal rows to the bit."""

from __future__ import annotations

import pytest
import torch

from caft_utils.directions.orthonormal import ORTHONORMAL_TOLERANCE, orthonormal_rows


def gram_error(q) -> float:
    return (q @ q.T - torch.eye(len(q))).abs().max().item()


def gram_schmidt(rows):
    """The textbook definition, twice for accuracy, in float64."""
    basis = torch.zeros(0, rows.shape[1], dtype=torch.float64)
    for row in rows.double():
        for _ in range(2):
            row = row - (row @ basis.T) @ basis
        basis = torch.cat([basis, (row / row.norm())[None]])
    return basis


@pytest.mark.parametrize("k, d", [(1, 64), (3, 64), (16, 128), (64, 64)])
def test_the_result_is_that_of_gram_schmidt(k, d):
    rows = torch.randn(k, d, generator=torch.Generator().manual_seed(k))
    q = orthonormal_rows(rows, "here")
    assert q.dtype == torch.float32 and q.is_contiguous()
    torch.testing.assert_close(q, gram_schmidt(rows).float(), atol=1e-7, rtol=0)


def test_order_span_and_signs_of_nearly_parallel_rows_of_different_length():
    torch.manual_seed(0)
    given = torch.randn(5, 64) * torch.tensor([1e-3, 1.0, 50.0, 3.0, 0.2])[:, None]
    given[3] = given[0] * 100 + 0.01 * given[3]
    q = orthonormal_rows(given, "here")
    assert gram_error(q) < 1e-6
    for i in range(5):  # row i lies in the span of the first i + 1 given rows, on the side of row i
        first = torch.linalg.qr(given[: i + 1].double().T).Q
        row = q[i].double()
        torch.testing.assert_close(first @ (first.T @ row), row, atol=1e-5, rtol=0)
        assert row @ given[i].double() > 0


def test_orthonormal_rows_are_kept_to_the_bit():
    q = torch.linalg.qr(torch.randn(16, 3)).Q.T.contiguous()
    kept = orthonormal_rows(q, "here")
    assert torch.equal(kept, q) and kept.data_ptr() != q.data_ptr()
    tilted = q.clone()
    tilted[0] += 1e-3 * tilted[1]
    assert gram_error(tilted) > ORTHONORMAL_TOLERANCE
    assert gram_error(orthonormal_rows(tilted, "here")) < 1e-6


def test_dependent_rows_are_refused_by_number_or_left_out():
    a, b, c = torch.randn(3, 8)
    rows = torch.stack([a, b, a - 2 * b, torch.zeros(8), c, c])
    with pytest.raises(ValueError, match="here: row 2 is zero or a combination"):
        orthonormal_rows(rows, "here")
    q = orthonormal_rows(rows, "here", skip_dependent=True)
    torch.testing.assert_close(q, orthonormal_rows(torch.stack([a, b, c]), "here"))


def test_more_rows_than_dimensions():
    rows = torch.randn(5, 3)
    with pytest.raises(ValueError, match="row 3 is zero or a combination"):
        orthonormal_rows(rows, "here")
    q = orthonormal_rows(rows, "here", skip_dependent=True)
    torch.testing.assert_close(q, orthonormal_rows(rows[:3], "here"))
