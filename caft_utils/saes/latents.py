"""Chosen SAE latents as a reader looks at them, in the same way as at the components of a PCA.

A latent is known by its id among the F of its layer, fires on one side only, and its decoder row is what it
writes into the residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from caft_utils.saes.saes import SAEs


class Latents:
    """Latents of SAEs to be read or ranked (`sae_directions` makes directions of them, to ablate).

    Args:
        saes: where they come from. chosen: {layer: [latent id, ...]}; layers given an empty list are left
            out.

    Raises:
        ValueError: nothing chosen, or a latent chosen twice. KeyError: no such layer. IndexError: no such
            latent.
    """

    noun = "latent"
    signed = False

    def __init__(self, saes: SAEs, chosen: Mapping[int, Sequence[int]]):
        self.saes = saes
        self.chosen = {int(l): [int(i) for i in chosen[l]] for l in sorted(chosen) if len(chosen[l])}
        if not self.chosen:
            raise ValueError("no latent chosen; expected for example {1: [17, 305]} for two of layer 1")
        for layer, ids in self.chosen.items():
            count = saes[layer].cfg.d_sae
            if wrong := [i for i in ids if not 0 <= i < count]:
                raise IndexError(f"layer {layer} has latents 0 to {count - 1}, got {wrong}")
            if len(set(ids)) < len(ids):
                raise ValueError(f"layer {layer}: a latent is chosen twice in {ids}")

    def __repr__(self) -> str:
        counts = ", ".join(f"{layer}: {len(ids)}" for layer, ids in self.chosen.items())
        return f"Latents({{{counts}}} of {self.saes!r})"

    @property
    def layers(self) -> list[int]:
        return list(self.chosen)

    @property
    def width(self) -> int:
        return self.saes.width

    def indices(self, layer: int) -> list[int]:
        """The ids of the chosen latents of `layer`."""
        if layer not in self.chosen:
            raise KeyError(f"no latent is chosen at layer {layer}; some are at {self.layers}")
        return self.chosen[layer]

    def values(self, layer: int, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Activations of the chosen latents, never below zero, columns in the order of `indices(layer)`."""
        ids = self.indices(layer)
        activations = self.saes.encode(layer, hidden)
        return activations if ids == list(range(activations.shape[1])) else activations[:, ids]

    def vector(self, layer: int, i: int) -> Float[Tensor, " d"]:
        """The decoder row of latent `i`, of length 1."""
        if i not in self.indices(layer):
            raise IndexError(f"latent {i} of layer {layer} is not among the chosen {self.indices(layer)}")
        return self.saes.decoder(layer)[i].cpu()
