"""Draw random directions that hold as much variance as given ones.

In d dimensions, k random directions hold about k/d of the variance. Components of a difference hold much
more. If ablating components changes what a model learns, and ablating random directions does not, the
variance alone could be the reason. The directions here test that: they are orthogonal to the given ones and
hold the same share of the variance.

Let S be the covariance on the complement of the given directions, with eigenvalues l and eigenvectors U. For
a standard normal G, the rows of G diag(l^(p/2)) U^T prefer large eigenvalues, and more so for a larger p.
With p = 0 they are isotropic, with p = 1 a draw from N(0, S), and for large p they span the leading
eigenvectors. Bisection finds the p at which they hold the wanted share.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import torch
from jaxtyping import Float
from torch import Tensor

from caft_utils.arguments import checked
from caft_utils.directions.subspace import Directions

LARGEST_POWER = 64.0
HALVINGS = 40


@checked
def random_with_variance(
    like: Directions, covariance: Mapping[int, Float[Tensor, "d d"]], *, seed: int
) -> Directions:
    """Return random directions that are orthogonal to `like` and hold the same share of the variance.

    Layers and ranks are those of `like`. Where the complement holds less variance than wanted, its leading
    eigenvectors are returned, and `about` says so.

    Args:
        covariance: {layer: [d, d]}, symmetric and positive semi-definite, for every layer of `like`. A
            scatter matrix will do, because only shares of the trace matter.

    Returns:
        Directions with `about` = method, seed, like (a fingerprint) and, by layer, the shares of the variance
        that were `wanted` and `reached`.

    Raises:
        ValueError: a layer has no covariance or one of another width, it has no variance, or fewer
            than k directions are left beside `like`.
    """
    rows, wanted, reached = {}, {}, {}
    for layer in like.layers:
        q = like[layer].double()
        k, d = q.shape
        s = covariance.get(layer)
        if s is None or tuple(s.shape) != (d, d):
            found = "none" if s is None else f"shape {tuple(s.shape)}"
            raise ValueError(f"layer {layer}: expected a covariance [{d}, {d}], got {found}")
        if 2 * k > d:
            raise ValueError(f"layer {layer}: {k} directions of {d} leave no room for {k} orthogonal ones")
        s = s.double().cpu()
        if not (total := s.trace()) > 0:
            raise ValueError(f"layer {layer}: the covariance has no variance")
        wanted[layer] = float((q @ s @ q.T).trace() / total)
        drawn = sha256(
            f"random directions with variance, layer {layer}, rank {k}, width {d}, {seed}".encode()
        )
        generator = torch.Generator().manual_seed(int.from_bytes(drawn.digest()[:7]))
        normal = torch.randn(k, d, generator=generator).double()
        rows[layer], reached[layer] = _with_share(s / total, q, normal, wanted[layer])
    about = {"method": "random_with_variance", "seed": seed, "like": like.fingerprint}
    return Directions(rows, about | {"wanted": wanted, "reached": reached})


def _with_share(
    s: Float[Tensor, "d d"], q: Float[Tensor, "k d"], normal: Float[Tensor, "k d"], share: float
) -> tuple[Float[Tensor, "k d"], float]:
    """Return k rows orthogonal to `q` that hold `share` of the variance of `s`, and the share reached."""
    rest = torch.eye(len(s), dtype=s.dtype) - q.T @ q
    values, vectors = torch.linalg.eigh(rest @ s @ rest)
    values = values.clamp(min=0) / values[-1].clamp(min=torch.finfo(s.dtype).tiny)

    def rows(power: float) -> tuple[Tensor, float]:
        # float64: for a large power, the rows are nearly parallel before they are made orthonormal
        found = torch.linalg.qr((rest @ vectors) @ (normal * values ** (power / 2)).T).Q.T
        return found, float((found @ s @ found.T).trace())

    low, high = 0.0, LARGEST_POWER
    if rows(high)[1] < share:
        leading = vectors.T.flip(0)[: len(q)]
        return leading, float((leading @ s @ leading.T).trace())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rows(middle)[1] < share else (low, middle)
    return rows(high)
