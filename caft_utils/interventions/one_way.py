"""Ablation of one direction of the computation: of the forward pass only, or of the backward pass only.

With the ablation a(h) = h - (h Q^T) Q (see ablation.py) and `stop`, which passes a value on without gradient,

    activation only    h  ->  stop(a(h)) + (h - stop(h))       value a(h), gradient as if nothing were ablated
    gradient only      h  ->  stop(h) + (a(h) - stop(a(h)))    value h, no gradient along Q

The brackets are zero, so the values are exact. CAFT does both at once. Training under one of them shows which
of the two keeps a concept from being learnt: that the model cannot use it, or that it gets no credit for it.
The first is the straight-through estimator (Bengio et al. 2013, arXiv 1308.3432); the second is gradient
routing (Cloud et al. 2024, arXiv 2410.04332) with a subspace in place of a mask.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from caft_utils.directions.subspace import Directions
from caft_utils.interventions.ablation import Ablate
from caft_utils.sinks import Sinks


class AblateActivation(Ablate):
    """Ablate `directions` in the forward pass, and pass the gradient on unchanged. Arguments as `Ablate`."""

    def edit(self, layer: int, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        # Not super(): backends/nnsight.py sends this function as source, which has no enclosing class.
        return _value_and_gradient(Ablate.edit(self, layer, hidden), hidden)


class AblateGradient(Ablate):
    """Leave the forward pass as it is, and remove the gradient's component along `directions`."""

    def __init__(self, directions: Directions, *, sinks: Sinks = "spare"):
        super().__init__(directions, sinks=sinks)

    def edit(self, layer: int, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        return _value_and_gradient(hidden, Ablate.edit(self, layer, hidden))


def _value_and_gradient(value: Tensor, gradient: Tensor) -> Tensor:
    """Return a tensor with the values of the first and the gradient of the second."""
    return value.detach() + (gradient - gradient.detach())


def ablate_activation(
    directions: Directions,
    *,
    mean: Mapping[int, Float[Tensor, " d"]] | None = None,
    sinks: Sinks = "spare",
) -> AblateActivation:
    """Return the ablation of `directions` that acts on activations and not on gradients.

    Outside of training it is the same as `ablate`.
    """
    return AblateActivation(directions, mean=mean, sinks=sinks)


def ablate_gradient(directions: Directions, *, sinks: Sinks = "spare") -> AblateGradient:
    """Return the ablation of `directions` that acts on gradients and not on activations.

    Outside of training it does nothing. There is no mean to choose, because a constant has no gradient.
    """
    return AblateGradient(directions, sinks=sinks)
