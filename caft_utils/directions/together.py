"""Stream several models over the same tokens, and say at which of them none has an attention sink."""

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
    """Yield one batch of each model, and by layer which of its n tokens are a sink in none of them.

    The progress bar is that of the first model.
    """
    limits = [sink_limits(model, layers, sinks) for model in models]
    streams = [
        stream_activations(
            model, chats, layers, tokens=tokens, batch_size=batch_size, progress=progress and not number
        )
        for number, model in enumerate(models)
    ]
    for batches in zip(*streams, strict=True):
        # All questions are asked before the first answer is fetched: a GPU computes while the CPU waits once.
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


def one_or_by_layer(counts: dict[int, int | list[int]]) -> int | list[int] | dict[int, int | list[int]]:
    """Return the count that all layers share, or the counts by layer where sinks make them differ."""
    first, *others = counts.values()
    return first if all(one == first for one in others) else counts
