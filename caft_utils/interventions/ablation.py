"""Ablation: remove a subspace from the residual stream, or set it to that of a mean."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from caft_utils.directions.subspace import Directions
from caft_utils.interventions.base import Intervention, at_least_float32, one_vector_each


class Ablate(Intervention):
    """Remove the component of the residual stream along `directions`, or set it to that of `mean`.

    Args:
        mean: {layer: [d]}: the component becomes that of this vector (mean ablation); without it, zero.
    """

    def __init__(self, directions: Directions, *, mean: Mapping[int, Float[Tensor, " d"]] | None = None):
        if mean is not None and set(mean) != set(directions.layers):
            raise ValueError(
                f"mean must have the layers {directions.layers} of the directions, got {sorted(mean)}"
            )
        basis = {layer: directions[layer] for layer in directions.layers}
        super().__init__({"basis": basis, "mean": one_vector_each(mean or {})})
        self.ranks = directions.ranks
        self.centred = mean is not None

    def extra_repr(self) -> str:
        return f"ranks={self.ranks}, to={'mean' if self.centred else 'zero'}"

    def edit(self, layer: int, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        with torch.autocast(hidden.device.type, enabled=False):  # which would turn the products into bfloat16
            exact = at_least_float32(hidden)
            basis = self.vector("basis", layer, exact)
            offset = exact - self.vector("mean", layer, exact) if self.centred else exact
            return (exact - (offset @ basis.T) @ basis).to(hidden.dtype)


def ablate(directions: Directions, *, mean: Mapping[int, Float[Tensor, " d"]] | None = None) -> Ablate:
    """The intervention of CAFT: `with ablate(bad).on(model): ...`, or `finetune(..., during=ablate(bad))`."""
    return Ablate(directions, mean=mean)
