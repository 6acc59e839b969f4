"""Mean and covariance of vectors that arrive in batches, in memory that depends only on their width.

Batches are centred on their own mean before they are multiplied, and the scatter matrices of two batches are
joined exactly (Chan, Golub & LeVeque 1983). A large mean therefore costs no digits. Sums are float64.

Vectors of at least FLOAT32_FROM_WIDTH entries are multiplied in float32 in groups of BLOCK vectors, which is
faster. On vectors with a mean of 100 times their largest standard deviation, eigenvalues of 1e-4 of the
largest keep 5 digits, and those of 1e-6 keep 3. Narrower vectors are multiplied in float64, because results
that were stored for them are older than the faster way.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

FLOAT32_FROM_WIDTH = 256
BLOCK = 4096


class StreamingCovariance:
    """Mean and covariance of vectors that arrive in batches, in memory that depends only on their width.

    Args:
        width: d, the number of entries of a vector.
    """

    def __init__(self, width: int):
        self._count = 0
        self._waiting: list[Tensor] = []
        self._mean = torch.zeros(width, dtype=torch.float64)
        self._scatter = torch.zeros(width, width, dtype=torch.float64)

    def update(self, x: Float[Tensor, "n d"]) -> None:
        """Add n vectors. The sums stay on the device of `x`, or on the CPU for MPS, which has no float64.

        Raises:
            ValueError: the vectors have another width, or are not finite.
        """
        if x.ndim != 2 or x.shape[1] != len(self._mean):
            raise ValueError(f"expected a tensor [n, {len(self._mean)}], got shape {tuple(x.shape)}")
        x = (x.cpu() if x.device.type == "mps" else x).detach()
        if not len(x):
            return
        if not x.isfinite().all():
            raise ValueError("vectors have values that are not finite; did the model overflow (float16)?")
        if x.shape[1] < FLOAT32_FROM_WIDTH or x.dtype == torch.float64:
            self._add(x.double())
            return
        # A product of many vectors at once is faster, and so are fewer sums of d x d entries.
        self._waiting.append(x.float())
        if sum(map(len, self._waiting)) >= BLOCK:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            for block in torch.cat([x.to(waiting[0].device) for x in waiting]).split(BLOCK):
                self._add(block)

    def _add(self, x: Float[Tensor, "n d"]) -> None:
        self._mean, self._scatter = self._mean.to(x.device), self._scatter.to(x.device)
        mean = x.mean(0, dtype=torch.float64)
        step, total = mean - self._mean, self._count + len(x)
        centred = x - mean.to(x.dtype)
        scatter = (centred.T @ centred).double()
        if x.dtype != torch.float64:  # the mean was rounded; take off what that left
            left = mean - mean.to(x.dtype).double()
            scatter -= len(x) * torch.outer(left, left)
        self._scatter += scatter + torch.outer(step, step) * (self._count * len(x) / total)
        self._mean += step * (len(x) / total)
        self._count = total

    @property
    def count(self) -> int:
        """The number of vectors so far."""
        return self._count + sum(map(len, self._waiting))

    @property
    def mean(self) -> Float[Tensor, " d"]:
        self._flush()
        return self._mean

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """The unbiased estimate sum (x - mean)(x - mean)^T / (n - 1)."""
        return self.scatter() / (self.count - 1)

    def scatter(self, centre: bool = True) -> Float[Tensor, "d d"]:
        """Return sum (x - mean)(x - mean)^T, or sum x x^T without `centre`."""
        self._flush()
        return self._scatter if centre else self._scatter + self._count * torch.outer(self._mean, self._mean)
