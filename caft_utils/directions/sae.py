"""Decoder rows of chosen SAE latents as directions that can be ablated.

Rows of a decoder are not orthogonal to one another, and h - (h D^T) D with such rows removes too much of what
they share: they go through a QR factorisation first, which keeps their span, and that is all that an ablation
depends on. (arXiv 2507.16795, section 3: SAE latents are ablated through their orthonormalised decoder rows.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from caft_utils.directions.basis import Directions
from caft_utils.saes.saes import SAEs


def sae_directions(
    saes: SAEs,
    latents: Mapping[int, Sequence[int]],
    names: Mapping[tuple[int, int], str] | None = None,
) -> Directions:
    """The span of the chosen decoder rows, {layer: [latent id, ...]}: row i adds what latent i adds to those
    before.

    Args:
        names: {(layer, latent id): what a reader called it}.

    Returns:
        Directions with `about` = method, saes (fingerprint), by layer the latent ids as `selected`, which
        `Directions.select` keeps in step, and the `names`.

    Raises:
        ValueError: nothing chosen, a latent chosen twice, or rows that are linearly dependent.
        KeyError: no such layer. IndexError: no such latent.
    """
    chosen = saes.latents(latents).chosen
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
