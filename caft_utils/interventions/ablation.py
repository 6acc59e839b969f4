"""Ablation, the intervention of CAFT: project hidden states onto the complement of a subspace.

With directions Q [k, d], whose rows are orthonormal, and an optional mean mu [d],

    h  ->  h - (h Q^T) Q            or            h - ((h - mu) Q^T) Q

at every position but attention sinks. The projection is part of the autograd graph, so it also removes the
component along Q from the gradient that reaches the site. Training under ablation therefore cannot use these
directions at the site, and cannot change what is written along them there. (arXiv 2507.16795, section 3.)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from caft_utils.arguments import instance
from caft_utils.directions.subspace import Directions
from caft_utils.interventions.base import Intervention, one_vector_each
from caft_utils.sinks import Sinks


class Ablate(Intervention):
    """Set the component of the residual stream along `directions` to zero, or to that of `mean`.

    Args:
        mean: {layer: [d]} for mean ablation, such as the result of `mean_hidden`. Default: zero ablation.
        sinks: "spare" leaves attention sinks as they are, "include" ablates there, too.

    Raises:
        ValueError: `mean` has other layers or another width than `directions`.
    """

    def __init__(
        self,
        directions: Directions,
        *,
        mean: Mapping[int, Float[Tensor, " d"]] | None = None,
        sinks: Sinks = "spare",
    ):
        wanted = "Directions, such as bad in ablate(bad) or in ablate(Directions({layer: rows}))"
        instance("the directions to ablate", directions, Directions, wanted)
        if mean is not None and set(mean) != set(directions.layers):
            raise ValueError(
                f"mean must have the layers {directions.layers} of the directions, got {sorted(mean)}"
            )
        basis = {layer: directions[layer] for layer in directions.layers}
        super().__init__({"basis": basis, "mean": one_vector_each(mean or {})}, sinks=sinks)
        self.ranks = directions.ranks
        self.centred = mean is not None

    def extra_repr(self) -> str:
        return f"ranks={self.ranks}, to={'mean' if self.centred else 'zero'}"

    def edit(self, layer: int, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        # Compute in float32 or better. In bfloat16 Q is orthonormal only to about 0.4 %, and that share of
        # the component would remain. Autocast would turn the products into bfloat16.
        with torch.autocast(hidden.device.type, enabled=False):
            exact = hidden if hidden.dtype == torch.float64 else hidden.float()
            basis = self.vector("basis", layer, exact)
            offset = exact - self.vector("mean", layer, exact) if self.centred else exact
            return (exact - (offset @ basis.T) @ basis).to(hidden.dtype)


def ablate(
    directions: Directions,
    *,
    mean: Mapping[int, Float[Tensor, " d"]] | None = None,
    sinks: Sinks = "spare",
) -> Ablate:
    """Return the ablation of `directions`, to zero or to `mean`, sparing attention sinks, see `Ablate`.

    Use it as `with ablate(bad).on(model): ...` or as `finetune(model, chats, during=ablate(bad))`.
    """
    return Ablate(directions, mean=mean, sinks=sinks)
