"""Affine concept editing: put the component along a concept at a chosen place between two means.

With the means mu- and mu+ of hidden states without and with the concept, r = mu+ - mu- and the projection
proj onto r,

    h  ->  h - proj(h) + proj(mu-) + strength * r        =  h - proj(h - (mu- + strength * r)),

except at attention sinks. The right side says that this is ablation to a mean, the one at `strength` on the
way from mu- to mu+. At strength 0 every state has the component of states without the concept. Zero ablation
puts it at proj(0) instead, which can be far from both means. (Marshall et al. 2024, arXiv 2411.09003.)
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from caft_utils.arguments import number
from caft_utils.directions.subspace import Directions
from caft_utils.interventions.ablation import Ablate
from caft_utils.interventions.base import one_vector_each
from caft_utils.sinks import Sinks


def edit_affinely(
    vectors: Mapping[int, Float[Tensor, " d"]],
    mean: Mapping[int, Float[Tensor, " d"]],
    strength: float = 0.0,
    *,
    sinks: Sinks = "spare",
) -> Ablate:
    """Return affine concept editing along `vectors`, {layer: mu+ - mu-}, around `mean`, {layer: mu-}.

    Args:
        strength: 0 for states without the concept, 1 for states with it.

    Raises:
        ValueError: `mean` has other layers or another width than `vectors`, or a vector is zero.
    """
    directions, strength = Directions(one_vector_each(vectors)), float(number("strength", strength))
    one_vector_each(mean)
    if set(mean) != set(vectors):
        raise ValueError(f"mean must have the layers {sorted(vectors)} of the vectors, got {sorted(mean)}")
    goal = {layer: mean[layer] + strength * vector for layer, vector in vectors.items()}
    return Ablate(directions, mean=goal, sinks=sinks)
