"""Selected SAE latents, readable in the same way as the components of a PCA.

A latent is identified by its number among the F latents of its layer. It is active on one side only, and its
decoder row is the direction that it writes into the residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from caft_utils.directions.subspace import Directions
from caft_utils.features import Selection
from caft_utils.saes.collection import SAEs
from caft_utils.store import digest


class Latents:
    """Latents of SAEs to interpret, rank or select. Implements the `Features` protocol.

    Args:
        saes: the SAEs that the latents belong to.
        selection: a `Selection` or a plain {layer: [latent, ...]}. Default: all latents. Layers with an empty
            list are left out.

    Raises:
        ValueError: nothing is selected, or a latent is selected twice.
        KeyError: there is no SAE at a layer.
        IndexError: a latent does not exist.
    """

    kind = "latent"
    two_sided = False

    def __init__(self, saes: SAEs, selection: Mapping[int, Sequence[int]] | None = None):
        if selection is None:
            selection = {layer: range(sae.cfg.d_sae) for layer, sae in saes.items()}
        self.saes = saes
        self.selection = Selection(selection)
        if not self.selection:
            raise ValueError("no latent selected; expected for example {1: [17, 305]} for two of layer 1")
        for layer, latents in self.selection.items():
            count = saes[layer].cfg.d_sae
            if wrong := [i for i in latents if not 0 <= i < count]:
                raise IndexError(f"layer {layer} has latents 0 to {count - 1}, got {wrong}")

    def __repr__(self) -> str:
        counts = ", ".join(f"{layer}: {len(latents)}" for layer, latents in self.selection.items())
        return f"Latents({{{counts}}} of {self.saes!r})"

    @property
    def layers(self) -> list[int]:
        return list(self.selection)

    @property
    def width(self) -> int:
        return self.saes.width

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of the SAEs and the numbers of the selected latents."""
        return digest([self.saes.fingerprint, list(self.selection.items())])

    def indices(self, layer: int) -> list[int]:
        """Return the numbers of the selected latents of `layer`."""
        if layer not in self.selection:
            raise KeyError(f"no latent is selected at layer {layer}; some are at {self.layers}")
        return self.selection[layer]

    def values(self, layer: int, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Return the activations of the selected latents, which are never negative.

        Columns are in the order of `indices(layer)`.
        """
        latents = self.indices(layer)
        activations = self.saes.encode(layer, hidden)
        return activations if latents == list(range(activations.shape[1])) else activations[:, latents]

    def vector(self, layer: int, i: int) -> Float[Tensor, " d"]:
        """Return the decoder row of latent `i`, a unit vector."""
        if i not in self.indices(layer):
            raise IndexError(f"latent {i} of layer {layer} is not among the selected {self.indices(layer)}")
        return self.saes.decoder(layer)[i].cpu()

    def projection_rows(self, layer: int) -> None:
        """Return None, because activations are not projections."""

    def select(
        self, selection: Mapping[int, Sequence[int]], names: Mapping[tuple[int, int], str] | None = None
    ) -> Directions:
        """Return an orthonormal basis of the selected latents' decoder rows, see `sae_directions`.

        Raises:
            ValueError: nothing is selected, or a latent is selected twice.
            KeyError, IndexError: a latent is not among these.
        """
        selection = Selection(selection)
        for layer, latents in selection.items():
            if wrong := sorted(set(latents) - set(self.indices(layer))):
                raise IndexError(f"latents {wrong} of layer {layer} are not among the selected ones")
        return sae_directions(self.saes, selection, names)


def sae_directions(
    saes: SAEs,
    selection: Mapping[int, Sequence[int]],
    names: Mapping[tuple[int, int], str] | None = None,
) -> Directions:
    """Return an orthonormal basis of the selected decoder rows, {layer: [latent, ...]}.

    Row i is the part of latent i's decoder row that is orthogonal to the rows before it. Decoder rows are not
    orthogonal to each other, so projecting them out one by one would remove shared parts more than once. The
    ablation depends on their span only. (arXiv 2507.16795, section 3.)

    Args:
        selection: a `Selection` or a plain mapping.
        names: {(layer, latent): name}. Default: the names of `selection`.

    Returns:
        Directions with `about` = method and saes (the fingerprint), and by layer the latents as `selected`
        and their `names`. `Directions.select` keeps both in step.

    Raises:
        ValueError: nothing is selected, a latent is selected twice, or rows are linearly dependent.
        KeyError: there is no SAE at a layer.
        IndexError: a latent does not exist.
    """
    selection = Latents(saes, selection).selection
    names = selection.names if names is None else names
    about = {"method": "sae_directions", "saes": saes.fingerprint}
    about["selected"] = {str(layer): latents for layer, latents in selection.items()}
    if names:
        about["names"] = {
            str(layer): [names.get((layer, i), "") for i in latents] for layer, latents in selection.items()
        }
    return Directions({layer: saes.decoder(layer)[latents] for layer, latents in selection.items()}, about)
