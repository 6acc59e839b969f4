"""Steering: add a vector to the residual stream, h -> h + strength * v, except at attention sinks."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from caft_utils.arguments import number
from caft_utils.interventions.base import Intervention, one_vector_each
from caft_utils.sinks import Sinks


class Steer(Intervention):
    """Add `strength` times a vector to the residual stream at each of its layers.

    Args:
        vectors: {layer: [d]}. They are not normalised, so their length scales the effect.
        sinks: "spare" leaves attention sinks as they are, "include" steers there, too.
    """

    def __init__(
        self, vectors: Mapping[int, Float[Tensor, " d"]], strength: float = 1.0, *, sinks: Sinks = "spare"
    ):
        super().__init__({"vector": one_vector_each(vectors)}, sinks=sinks)
        self.strength = float(number("strength", strength))

    def extra_repr(self) -> str:
        return f"layers={self.layers}, strength={self.strength}"

    def edit(self, layer: int, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        return hidden + (self.strength * self.vector("vector", layer, hidden)).to(hidden.dtype)


def steer(
    vectors: Mapping[int, Float[Tensor, " d"]], strength: float = 1.0, *, sinks: Sinks = "spare"
) -> Steer:
    """Return the intervention that adds `strength` times a vector, {layer: [d]}, sparing attention sinks.

    Use it as `with steer(vectors).on(model): ...` or as `finetune(model, chats, during=steer(vectors))`.
    """
    return Steer(vectors, strength, sinks=sinks)
