"""Rank latents by what differs between a tuned model and its base on the same tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.directions.model_streams import stream_together
from caft_utils.residual import Tokens
from caft_utils.saes.collection import SAEs
from caft_utils.saes.quality import ENCODE_CHUNK
from caft_utils.saes.ranking import LatentRanking, check_width, fetch_ranking, provenance
from caft_utils.sinks import Sinks

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store


@checked
def latent_difference(
    tuned: nn.Module,
    base: nn.Module,
    chats: Chats,
    saes: SAEs,
    *,
    tokens: Tokens = "all",
    sinks: Sinks = "spare",
    batch_size: int = 32,
    store: Store | None = None,
    progress: bool = False,
) -> LatentRanking:
    """Return the mean activation in `tuned` minus that in `base` on the same tokens.

    A positive score means that the latent is more active in `tuned`. CAFT takes the positive end on the
    answer tokens of generic chats.

    Args:
        store: where the result is cached; default: see `default_store`.

    Raises:
        ValueError: the SAEs and a model differ in width, or there is no token.
    """
    options = {"tokens": tokens, "sinks": sinks, "batch_size": batch_size, "progress": progress}

    def read(layer: int, after: Tensor, before: Tensor) -> Tensor:
        return saes.encode(layer, after).sum(0) - saes.encode(layer, before).sum(0)

    positive = "the latent fires more in the tuned model"
    about = provenance(
        "latent_difference", saes, chats, tokens, sinks, positive=positive, tuned=tuned, base=base
    )
    return fetch_ranking(
        about,
        lambda: _token_mean(tuned, base, saes, chats, options, read),
        models=(tuned, base),
        store=store,
    )


@checked
def difference_latents(
    tuned: nn.Module,
    base: nn.Module,
    chats: Chats,
    saes: SAEs,
    *,
    centre: bool = True,
    tokens: Tokens = "all",
    sinks: Sinks = "spare",
    batch_size: int = 32,
    store: Store | None = None,
    progress: bool = False,
) -> LatentRanking:
    """Return the mean activation on h_tuned - h_base, encoded as if it were a hidden state.

    Args:
        centre: add b_dec to the difference if the encoder subtracts it, so that the two cancel. False encodes
            the plain difference, as in the code released with CAFT.
        store: where the result is cached; default: see `default_store`.

    Raises:
        ValueError: the SAEs and a model differ in width, or there is no token.
    """

    def read(layer: int, after: Tensor, before: Tensor) -> Tensor:
        sae, change = saes[layer], after - before
        if centre and sae.cfg.apply_b_dec_to_input:
            change = change + sae.b_dec.to(change.device)
        return saes.encode(layer, change).sum(0)

    options = {"tokens": tokens, "sinks": sinks, "batch_size": batch_size, "progress": progress}
    positive = "the change from base to tuned goes along the latent"
    about = provenance(
        "difference_latents", saes, chats, tokens, sinks, positive=positive, tuned=tuned, base=base
    )
    return fetch_ranking(
        about | {"centre": centre},
        lambda: _token_mean(tuned, base, saes, chats, options, read),
        models=(tuned, base),
        store=store,
    )


def _token_mean(
    tuned, base, saes: SAEs, chats: Chats, options: dict, score
) -> dict[int, Float[Tensor, " F"]]:
    """Return the mean over tokens, where `score(layer, h_tuned, h_base)` returns the sum over some tokens."""
    check_width(tuned, saes)
    check_width(base, saes)
    totals = {layer: torch.zeros(sae.cfg.d_sae, dtype=torch.float64) for layer, sae in saes.items()}
    count = dict.fromkeys(saes.layers, 0)
    for (after, before), kept in stream_together([tuned, base], chats, saes.layers, **options):
        for layer in saes.layers:
            keep = kept[layer] & (after.position > 0)
            count[layer] += int(keep.sum())
            h = after.hidden[layer]
            pair = (h, before.hidden[layer].to(h.device))  # the models can be on two devices
            for a, b in zip(*(part[keep.to(h.device)].split(ENCODE_CHUNK) for part in pair)):
                totals[layer] += score(layer, a, b).double().cpu()
    if not all(count.values()):
        raise ValueError(f"{chats!r} has no token with tokens={options['tokens']!r} after the first of a row")
    return {layer: (total / count[layer]).float() for layer, total in totals.items()}
