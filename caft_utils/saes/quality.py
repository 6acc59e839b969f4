"""Measure how faithful and how sparse SAEs are, on text that they were not trained on.

    explained_variance   1 - sum ||h - h'||^2 / sum ||h - mean||^2     over all tokens, h' the reconstruction
    l0                   mean number of active latents on a token
    dead                 share of latents that are active on no token of the text
    loss_recovered       (L_zero - L_sae) / (L_zero - L_model)         L: nats per answer token

L_sae is the model's loss with h' in place of h at one layer, and L_zero its loss with zeros there. The first
token of a row and attention sinks elsewhere are excluded from all measures and keep their hidden state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.losses import mean_answer_loss
from caft_utils.models import fingerprint
from caft_utils.residual import edit, stream_activations, width
from caft_utils.saes.collection import SAEs
from caft_utils.sinks import Sinks, is_sink, key_of_sinks, sink_limits
from caft_utils.stored_results import fetch_json

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give different measures
ENCODE_CHUNK = 4096  # tokens encoded at once; activations of wide SAEs take more memory than hidden states


@checked
def sae_quality(
    model: nn.Module,
    chats: Chats,
    saes: SAEs,
    *,
    loss: bool = False,
    sinks: Sinks = "spare",
    batch_size: int = 32,
    store: Store | None = None,
    progress: bool = False,
) -> dict[int, dict[str, float]]:
    """Return {layer: {measure: value}} with explained_variance, l0 and dead.

    Rare latents need a lot of text. A latent that is active on one token in 10,000 looks dead on 5,000
    tokens.

    Args:
        loss: also measure loss_recovered, which takes two more passes over the text for each layer.
        sinks: "spare" leaves out attention sinks after the first token too, "include" counts them.
        store: where the result is cached; default: see `default_store`.

    Raises:
        ValueError: no row has two tokens, or the SAEs and the model differ in width.
    """
    key = {
        "format": FORMAT,
        "model": fingerprint(model),
        "data": chats.fingerprint,
        "saes": saes.fingerprint,
        "loss": loss,
        **key_of_sinks(sinks, width(model)),
    }
    options = {"loss": loss, "sinks": sinks, "batch_size": batch_size, "progress": progress}

    def compute() -> dict[int, dict[str, float]]:
        return compute_quality(model, chats, saes, **options)

    quality = fetch_json("sae_quality", key, compute, models=(model,), store=store)
    return {int(layer): values for layer, values in quality.items()}


def compute_quality(
    model: nn.Module,
    chats: Chats,
    saes: SAEs,
    *,
    loss: bool = False,
    sinks: Sinks = "spare",
    batch_size: int,
    progress: bool = False,
) -> dict[int, dict[str, float]]:
    """Return what `sae_quality` returns, without the store."""
    limits = sink_limits(model, saes.layers, sinks)
    count, sums = dict.fromkeys(saes.layers, 0), {layer: _Sums() for layer in saes.layers}
    for batch in stream_activations(model, chats, saes.layers, batch_size=batch_size, progress=progress):
        for layer, sums_here in sums.items():
            keep = (batch.position > 0) & ~is_sink(batch.hidden[layer], limits[layer]).cpu()
            count[layer] += int(keep.sum())
            for hidden in batch.hidden[layer][keep.to(batch.hidden[layer].device)].split(ENCODE_CHUNK):
                sums_here.add(saes, layer, hidden)
    if not all(count.values()):
        raise ValueError(f"{chats!r} has no row of two tokens, and first tokens are left out")
    quality = {layer: sums_here.result(count[layer]) for layer, sums_here in sums.items()}
    if loss:
        clean = mean_answer_loss(model, chats, batch_size=batch_size)
        for layer in saes.layers:
            with edit(model, {layer: _splice(partial(saes.reconstruct, layer), limits[layer])}):
                spliced = mean_answer_loss(model, chats, batch_size=batch_size)
            with edit(model, {layer: _splice(torch.zeros_like, limits[layer])}):
                zero = mean_answer_loss(model, chats, batch_size=batch_size)
            quality[layer]["loss_recovered"] = (zero - spliced) / (zero - clean)
    return quality


class _Sums:
    """Sums over the tokens of one layer, in float64, from which the measures follow."""

    def __init__(self):
        self.error = self.square = self.active = 0.0
        self.mean: Tensor | float = 0.0
        self.fired: Tensor | bool = False

    def add(self, saes: SAEs, layer: int, hidden: Tensor) -> None:
        latents = saes.encode(layer, hidden)
        h = hidden.cpu().double()
        self.error += (h - saes[layer].decode(latents).cpu().double()).square().sum().item()
        self.square += h.square().sum().item()
        self.mean = self.mean + h.sum(0)
        self.active += int((latents > 0).sum())
        self.fired = self.fired | (latents > 0).any(0).cpu()

    def result(self, count: int) -> dict[str, float]:
        variance = self.square - float((self.mean / count).square().sum()) * count
        return {
            "explained_variance": 1 - self.error / variance,
            "l0": self.active / count,
            "dead": 1 - float(self.fired.double().mean()),
        }


def _splice(change: Callable[[Tensor], Tensor], limit: float) -> Callable[[Tensor], Tensor]:
    """Return an edit that applies `change` to all hidden states except sinks and the first of each row."""

    def spliced(hidden: Float[Tensor, "batch time d"]) -> Float[Tensor, "batch time d"]:
        edited = change(hidden.reshape(-1, hidden.shape[-1])).reshape(hidden.shape).to(hidden.dtype)
        edited = torch.where(is_sink(hidden, limit)[..., None], hidden, edited)
        return torch.cat([hidden[:, :1], edited[:, 1:]], dim=1)

    return spliced
