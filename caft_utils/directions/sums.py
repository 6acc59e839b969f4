"""Sum hidden states by group of tokens, and cache directions. Shared by all methods that use means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.directions.model_streams import stream_together
from caft_utils.directions.subspace import Directions
from caft_utils.residual import ActivationBatch, width
from caft_utils.stored_results import fetch_result

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give different directions


@dataclass
class GroupSums:
    """Sums over the hidden states of one model by layer.

    count: number of tokens in each group. total: the sum of their hidden states. squares: the sum of squared
    lengths over all groups.
    """

    count: dict[int, Float[Tensor, " groups"]]
    total: dict[int, Float[Tensor, "groups d"]]
    squares: dict[int, float]


def sums_by_group(
    models: Sequence[nn.Module],
    chats: Chats,
    layers: Sequence[int],
    groups: int,
    group: Callable[[ActivationBatch], Tensor],
    **options,
) -> list[GroupSums]:
    """Return the sums of each model over the same tokens.

    Args:
        group: maps a batch to the group of each token, -1 for tokens that do not count.
    """

    def zeros(*shape: int) -> dict[int, Tensor]:
        return {layer: torch.zeros(*shape, dtype=torch.float64) for layer in layers}

    sums = [GroupSums(zeros(groups), zeros(groups, width(m)), dict.fromkeys(layers, 0.0)) for m in models]
    for batches, kept in stream_together(models, chats, layers, **options):
        which = group(batches[0])
        for batch, one in zip(batches, sums):
            for layer in one.total:
                counted = (which >= 0) & kept[layer]
                hidden = batch.hidden[layer].cpu().double()[counted]
                one.count[layer] += torch.bincount(which[counted], minlength=groups)
                one.total[layer].index_add_(0, which[counted], hidden)
                one.squares[layer] += hidden.square().sum().item()
    return sums


def stored_directions(
    about: dict[str, Any],
    layers: Sequence[int],
    compute: Callable[[], Directions],
    models: Sequence[nn.Module],
    store: Store | None,
) -> Directions:
    """Return the directions of this key from the store, or compute and store them."""
    key = {"format": FORMAT, **about, "layers": sorted(set(layers))}
    return fetch_result(
        "directions", key, compute, save=Directions.save, load=Directions.load, models=models, store=store
    )
