"""Features that a test defines by rows of a matrix or by a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from caft_utils.directions import Directions


class FakeFeatures:
    """Features whose values are a function of the hidden states.

    Args:
        values: hidden states [n, d] -> values [n, k], at every layer. Or the rows [k, d] to project on.
        indices: by default 0 to k - 1 (needs rows).
        two_sided: components (read at both ends), or latents (read where their values are above zero).
        vectors: {index: vector}; by default the rows, or a constant vector of width `width`.
        projections: with rows, whether `projection_rows` hands them out.
    """

    fingerprint = None  # a function has none, so nothing is stored

    def __init__(
        self,
        values: Callable[[torch.Tensor], torch.Tensor] | torch.Tensor,
        *,
        layers: Sequence[int] = (0,),
        indices: Sequence[int] | None = None,
        two_sided: bool = False,
        width: int = 64,
        vectors: Mapping[int, torch.Tensor] | None = None,
        projections: bool = False,
    ):
        rows = values if isinstance(values, torch.Tensor) else None
        self._of = (lambda hidden: hidden @ rows.T) if rows is not None else values
        if indices is None:
            if rows is None:
                raise ValueError("indices are needed where values are a function")
            indices = range(len(rows))
        self._indices, self._vectors, self._width = list(indices), vectors, width
        self.rows, self._projections = rows, projections
        self.kind, self.two_sided = ("component" if two_sided else "latent"), two_sided
        self.layers = list(layers)

    def indices(self, layer: int) -> list[int]:
        return self._indices

    def values(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        return self._of(hidden)

    def vector(self, layer: int, i: int) -> torch.Tensor:
        if self._vectors is not None:
            vector = self._vectors[i]
        else:
            vector = torch.ones(self._width) if self.rows is None else self.rows[self._indices.index(i)]
        return torch.nn.functional.normalize(vector.detach(), dim=0)

    def projection_rows(self, layer: int) -> torch.Tensor | None:
        return self.rows if self._projections else None

    def select(
        self, selection: Mapping[int, Sequence[int]], names: Mapping[tuple[int, int], str] | None = None
    ) -> Directions:
        return Directions(
            {layer: torch.stack([self.vector(layer, i) for i in ids]) for layer, ids in selection.items()}
        )
