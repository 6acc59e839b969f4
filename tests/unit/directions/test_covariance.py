"""The float32 way of wide vectors: as exact as the eigenvectors that are used need it."""

from __future__ import annotations

import pytest
import torch

from caft_utils.directions.covariance import FLOAT32_FROM_WIDTH, StreamingCovariance, gram_in_tf32
from caft_utils.directions.pca import principal_axes

WIDTH = FLOAT32_FROM_WIDTH


@pytest.mark.parametrize("mean", [0.0, 100.0])
@pytest.mark.parametrize("batch", [7, 1000, 9000])
def test_wide_vectors_have_the_components_of_float64(mean, batch):
    """Eigenvalues over eight decades, and a mean of 100 times the largest standard deviation."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64))[0]
    scales = torch.logspace(0, -4, WIDTH, dtype=torch.float64)
    x = torch.randn(6000, WIDTH, generator=generator, dtype=torch.float64) * scales @ basis.T
    x = (x + mean).float()
    streaming = StreamingCovariance(WIDTH)
    for part in x.split(batch):
        streaming.update(part)
    exact = x.double() - x.double().mean(0)
    values, vectors = principal_axes(exact.T @ exact, 64)
    found_values, found_vectors = principal_axes(streaming.scatter(), 64)
    assert streaming.count == 6000
    torch.testing.assert_close(streaming.mean, x.double().mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found_values, values, rtol=1e-5, atol=0)
    assert ((vectors * found_vectors).sum(1).abs() > 1 - 1e-9)[:8].all()


def test_large_values_are_finite_even_if_their_sum_is_not():
    streaming, large = StreamingCovariance(WIDTH), torch.full((2, WIDTH), 3e38)
    streaming.update(large)
    assert not large.sum().isfinite() and streaming.mean.isfinite().all()
    large[1, 3] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        streaming.update(large)


def test_wide_float64_vectors_stay_float64():
    x = torch.randn(50, WIDTH, dtype=torch.float64)
    streaming = StreamingCovariance(WIDTH)
    streaming.update(x)
    torch.testing.assert_close(streaming.covariance, torch.cov(x.T), rtol=1e-12, atol=1e-14)


def test_two_products_in_tf32_are_nearly_one_in_float32(monkeypatch):
    """TF32 keeps 10 bits of an operand. A CPU has none, so the second operand is cut here as a GPU would."""
    x = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -3, 64)
    exact = x.double().T @ x.double()
    size = exact.diagonal().sqrt()
    matmul = torch.Tensor.__matmul__

    def tf32(a, b):
        return matmul(
            *((one.contiguous().view(torch.int32) & -(1 << 13)).view(torch.float32) for one in (a, b))
        )

    def error(found):
        return ((found.double() - exact).abs() / (size[:, None] * size)).max()

    assert error(tf32(x.T, x)) > 1e-4
    monkeypatch.setattr(torch.Tensor, "__matmul__", tf32)
    found = gram_in_tf32(x)
    monkeypatch.undo()
    assert error(found) < 2e-6 and torch.allclose(found, found.T, atol=1e-3)
    assert not torch.backends.cuda.matmul.allow_tf32
