"""Compute histograms of streams of numbers whose range is not known in advance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

BINS = 40


@dataclass(frozen=True)
class Histogram:
    """Counts of values in equal bins from -edge to edge."""

    edge: float
    counts: list[int]


class StreamingHistogram:
    """Histograms of k streams of numbers.

    Bins cover -edge to edge, where edge is a power of two above every magnitude so far. When a value reaches
    the edge, the edge doubles and two old bins become one new bin. No count is lost, and the result is the
    same as if the final edge had been known from the start. The edge is 0 while all values are zero.
    """

    def __init__(self, k: int):
        self.counts = torch.zeros(k, BINS, dtype=torch.long)
        self.edge = torch.zeros(k)

    def add(
        self,
        values: Float[Tensor, "n c"],
        columns: slice = slice(None),
        magnitude: Float[Tensor, " c"] | None = None,
        skip: Int[Tensor, " m"] | None = None,
    ) -> None:
        """Count values of the streams `columns`, except in the rows `skip`.

        Args:
            magnitude: the largest magnitude among the counted values of each stream, if already computed.
        """
        self.counts, self.edge = self.counts.to(values.device), self.edge.to(values.device)
        if magnitude is None:
            magnitude = torch.maximum(values.amax(0), -values.amin(0))
        edge, counts = self.edge[columns], self.counts[columns]  # views
        first = (edge == 0) & (magnitude > 0)
        edge[first] = 2 ** magnitude[first].clamp(min=1e-30).log2().ceil()
        while (narrow := (magnitude >= edge) & (edge > 0) & edge.isfinite()).any():
            pairs = counts[narrow].view(-1, BINS // 2, 2).sum(-1)
            counts[narrow] = nn.functional.pad(pairs, (BINS // 4, BINS // 4))
            edge[narrow] *= 2
        # Scale and floor before the shift, because halving a float is exact and adding to it is not.
        scale, width = torch.where(edge > 0, BINS / 2 / edge, 0), BINS + 1  # one more bin for skipped values
        bins = (values * scale).floor_().int()
        if skip is not None:
            bins[skip] = BINS // 2
        bins += torch.arange(len(edge), device=values.device, dtype=torch.int32) * width + BINS // 2
        found = bins.flatten().bincount(minlength=width * len(edge)).view(-1, width)
        counts += found[:, :BINS]

    def of(self, stream: int) -> Histogram:
        """Return the histogram of one stream."""
        return Histogram(float(self.edge[stream]), self.counts[stream].tolist())
