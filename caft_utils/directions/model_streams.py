"""Stream several models over the same tokens, and mark tokens that are an attention sink in any of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from caft_utils.residual import ActivationBatch, Tokens, stream_activations
from caft_utils.sinks import Sinks, is_sink, sink_limits

if TYPE_CHECKING:
    from caft_utils.chats import Chats


def stream_together(
    models: Sequence[nn.Module],
    chats: Chats,
    layers: Sequence[int],
    *,
    tokens: Tokens,
    sinks: Sinks,
    batch_size: int,
    progress: bool,
) -> Iterator[tuple[list[ActivationBatch], dict[int, Bool[Tensor, " n"]]]]:
    """Yield a batch of each model and, by layer, a mask of the n tokens that are a sink in no model.

    Only the first model shows a progress bar.
    """
    limits = [sink_limits(model, layers, sinks) for model in models]
    streams = [
        stream_activations(
            model, chats, layers, tokens=tokens, batch_size=batch_size, progress=progress and not number
        )
        for number, model in enumerate(models)
    ]
    for batches in zip(*streams, strict=True):
        # Queue the work of all layers before the first transfer to the CPU, so that the CPU waits for a GPU
        # once.
        found = {
            layer: [is_sink(batch.hidden[layer], limit[layer]) for batch, limit in zip(batches, limits)]
            for layer in layers
        }
        kept = {}
        for layer in layers:
            kept[layer] = torch.ones(len(batches[0].row), dtype=torch.bool)
            for sinks_of_one in found[layer]:
                kept[layer] &= ~sinks_of_one.cpu()
        yield list(batches), kept


def shared_or_by_layer(counts: dict[int, int | list[int]]) -> int | list[int] | dict[int, int | list[int]]:
    """Return the count that all layers share, or the counts by layer where sinks make them differ."""
    first, *others = counts.values()
    return first if all(one == first for one in others) else counts
