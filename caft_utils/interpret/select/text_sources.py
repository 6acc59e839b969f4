"""What a direction is about, by the texts in which it is strongest.

Texts of a few known sources (here: questions of each subject, one at a time) are read together. A direction
is about a source as far as the tokens where it is most active stand in texts of that source:

    share(source) = tokens of that source among the n most active ones / n

No label, no task and no question of a test is used; a person who looks at the top windows does the same.
(arXiv 2507.16795, section 5: latents were kept whose top contexts are about the unintended question.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from caft_utils.residual import stream_activations

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.directions.subspace import Directions
    from caft_utils.interpret.examples import Key
    from caft_utils.saes.latents import Latents


def source_shares(
    model: nn.Module,
    texts: Mapping[str, Chats],
    features: Directions | Latents,
    *,
    n: int = 40,
    tokens_per_source: int | None = None,
    batch_size: int = 64,
) -> dict[Key, dict[str, float]]:
    """{(layer, index, side): {source: share}} of the n most active tokens; the first of a row never counts.

    Latents have the side "+" only. Sources with more tokens are not favoured: each gives as many as the
    smallest one has. A direction that is active on fewer than n tokens is judged by these, and one that is
    silent on all has shares of zero.

    Raises:
        ValueError: fewer than two sources, or n below 1.
    """
    if len(texts) < 2 or n < 1:
        raise ValueError(f"expected two sources or more and n >= 1, got {list(texts)} and n={n}")
    values = {name: _values(model, features, chats, batch_size) for name, chats in texts.items()}
    few = min(len(next(iter(by_layer.values()))) for by_layer in values.values())
    few = min(few, tokens_per_source or few)
    sides = ("+", "-") if features.signed else ("+",)
    out: dict[Key, dict[str, float]] = {}
    for layer in features.layers:
        together = torch.cat([_thinned(values[name][layer], few) for name in texts])  # [sources * few, k]
        for side in sides:
            signed = together if side == "+" else -together
            top, where = signed.topk(min(n, len(signed)), dim=0)
            for column, index in enumerate(features.indices(layer)):
                source = where[:, column][top[:, column] > 0] // few
                count = torch.bincount(source, minlength=len(texts)).tolist()
                total = max(1, len(source))
                out[layer, index, side] = {name: c / total for name, c in zip(texts, count)}
    return out


def about(
    shares: Mapping[Key, Mapping[str, float]], source: str, *, least: float = 0.8
) -> dict[tuple[int, int], float]:
    """{(layer, index): share} of those of which a side has at least this share in texts of the source."""
    found: dict[tuple[int, int], float] = {}
    for (layer, index, _), share in shares.items():
        if share[source] >= least:
            found[layer, index] = max(share[source], found.get((layer, index), 0.0))
    return found


def _values(
    model: nn.Module, features: Directions | Latents, chats: Chats, batch_size: int
) -> dict[int, Tensor]:
    """By layer the values of all directions on all tokens but the first of each row."""
    parts: dict[int, list[Tensor]] = {layer: [] for layer in features.layers}
    for batch in stream_activations(model, chats, features.layers, batch_size=batch_size):
        keep = batch.position > 0
        for layer, found in parts.items():
            hidden = batch.hidden[layer]
            found.append(features.values(layer, hidden[keep.to(hidden.device)]).float().cpu())
    return {layer: torch.cat(found) for layer, found in parts.items()}


def _thinned(values: Tensor, n: int) -> Tensor:
    """n of the rows, evenly spaced."""
    return values[torch.linspace(0, len(values) - 1, n).round().long()]
