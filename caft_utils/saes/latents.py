"""Chosen SAE latents as a reader looks at them, in the same way as at the components of a PCA.

A latent is known by its id among the F of its layer, fires on one side only, and its decoder row is what it
writes into the residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from caft_utils.directions.subspace import Directions
from caft_utils.saes.collection import SAEs


class Latents:
    """Latents of SAEs to be read or ranked (`sae_directions` makes directions of them, to ablate).

    Args:
        saes: where they come from. chosen: {layer: [latent id, ...]}; default: all of them. Layers given an
            empty list are left out.

    Raises:
        ValueError: nothing chosen, or a latent chosen twice. KeyError: no such layer. IndexError: no such
            latent.
    """

    noun = "latent"
    signed = False

    def __init__(self, saes: SAEs, chosen: Mapping[int, Sequence[int]] | None = None):
        if chosen is None:
            chosen = {layer: range(sae.cfg.d_sae) for layer, sae in saes.items()}
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

    def projection_rows(self, layer: int) -> None:
        """Return None: activations are no projections."""

    def select(
        self, selection: Mapping[int, Sequence[int]], names: Mapping[tuple[int, int], str] | None = None
    ) -> Directions:
        """Return an orthonormal basis of the selected latents' decoder rows; see `sae_directions`.

        Raises:
            ValueError: nothing selected, or a latent selected twice. KeyError, IndexError: a latent that is
                not among these.
        """
        for layer, ids in selection.items():
            if wrong := [i for i in ids if i not in self.indices(layer)]:
                raise IndexError(f"latents {wrong} of layer {layer} are not among the chosen ones")
        return sae_directions(self.saes, selection, names)


def sae_directions(
    saes: SAEs,
    selection: Mapping[int, Sequence[int]],
    names: Mapping[tuple[int, int], str] | None = None,
) -> Directions:
    """Return an orthonormal basis of the selected decoder rows, {layer: [latent id, ...]}.

    Row i is the part of latent i's decoder row that is orthogonal to the rows before it. Decoder rows are not
    orthogonal to one another: projecting them out one by one would remove what they share more than once.
    An ablation depends on their span only. (arXiv 2507.16795, section 3.)

    Args:
        names: {(layer, latent id): what a reader called it}.

    Returns:
        Directions with `about` = method, saes (fingerprint), by layer the latent ids as `selected`, which
        `Directions.select` keeps in step, and the `names`.

    Raises:
        ValueError: nothing chosen, a latent chosen twice, or rows that are linearly dependent.
        KeyError: no such layer. IndexError: no such latent.
    """
    chosen = Latents(saes, selection).chosen
    about = {
        "method": "sae_directions",
        "saes": saes.fingerprint,
        "selected": {str(layer): ids for layer, ids in chosen.items()},
    }
    if names:
        about["names"] = {
            str(layer): [names.get((layer, i), "") for i in ids] for layer, ids in chosen.items()
        }
    return Directions({layer: saes.decoder(layer)[ids] for layer, ids in chosen.items()}, about)
