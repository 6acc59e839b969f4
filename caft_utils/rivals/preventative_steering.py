"""Preventative steering: add the trait's vector during training, and remove it afterwards.

    h_l  ->  h_l + strength * v_l    in training,        h_l  at test

The steered model already shows the trait in training, so the gradient along v_l shrinks or points away from
the trait. (Chen et al. 2025, "Persona vectors", arXiv 2507.21509, section 5.) A vector that is added at one
layer reaches the next layers too. With `increments`, the vectors v_l - v_{l-1}, the sum at layer l is v_l
again. The controls are a random vector of equal norm and the opposite sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from caft_utils.arguments import whole
from caft_utils.directions import Directions
from caft_utils.finetuning import FinetuneConfig, finetune
from caft_utils.interventions import steer
from caft_utils.rivals.told import Told

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.chats import Chats

Vectors = Mapping[int, Float[Tensor, " d"]]
TOLD = Told("a vector towards the trait at each layer", "what finding the vector costs")
CONTROL_TOLD = Told("the norm of that vector", "none")


def steer_preventatively(
    model: PreTrainedModel,
    rows: Chats,
    config: FinetuneConfig | None = None,
    *,
    vectors: Vectors,
    strength: float = 1.0,
    seed: int = 0,
) -> PreTrainedModel:
    """Return the model fine-tuned on `rows` while `strength` times each vector is added at its layer."""
    return finetune(model, rows, config, during=steer(vectors, strength), seed=seed)


def steering_vectors(found: Directions) -> dict[int, Float[Tensor, " d"]]:
    """Return the mean differences behind `found` with their lengths, {layer: [d]}.

    Args:
        found: the result of `mean_difference` or `class_contrast`, with one direction per layer.

    Raises:
        ValueError: a layer does not have exactly one direction, or `found` has no lengths.
    """
    norms = found.about.get("norm", {})
    if any(rank != 1 for rank in found.ranks.values()) or set(norms) != set(map(str, found.layers)):
        raise ValueError(
            "steering vectors need one direction a layer with its length in about['norm'], as "
            f"mean_difference and class_contrast give them; got {found!r}"
        )
    return {layer: norms[str(layer)][0] * found.vector(layer, 0) for layer in found.layers}


def increments(vectors: Vectors) -> dict[int, Float[Tensor, " d"]]:
    """Return v_l - v_{l-1} at each layer, where l-1 is the layer before it in `vectors`; the first is v_l."""
    before, out = 0.0, {}
    for layer in sorted(vectors):
        out[layer], before = vectors[layer] - before, vectors[layer]
    return out


def random_vectors(vectors: Vectors, seed: int) -> dict[int, Float[Tensor, " d"]]:
    """Return the vectors, rotated at random, as a control.

    Norms and cosines between layers are preserved, so sums over layers keep their length too.
    """
    layers = sorted(vectors)
    stacked = torch.stack([vectors[layer].double() for layer in layers])
    _, coordinates = torch.linalg.qr(stacked.T)  # stacked = coordinates^T @ orthonormal rows
    generator = torch.Generator().manual_seed(whole("seed", seed))
    drawn = torch.randn(stacked.shape[1], len(coordinates), generator=generator, dtype=torch.float64)
    frame = torch.linalg.qr(drawn).Q
    return {layer: row.float() for layer, row in zip(layers, coordinates.T @ frame.T)}
