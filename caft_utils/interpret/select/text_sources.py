"""Determine what a direction is about from the source of the texts in which it is most active.

The model reads texts of a few known sources, for example questions of each subject. A direction is about a
source to the extent that its most active tokens come from texts of that source:

    share(source) = tokens of that source among the n most active ones / n

No label, task or test question is used. A person who looks at the top windows does the same. (arXiv
2507.16795, section 5, keeps latents whose top contexts are about the unintended question.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.features import FeatureKey, Features, sides
from caft_utils.models import fingerprint
from caft_utils.residual import stream_activations, width
from caft_utils.sinks import Sinks, is_sink, key_of_sinks, sink_limits
from caft_utils.stored_results import fetch_json

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give different shares


@checked
def source_shares(
    model: nn.Module,
    texts: Mapping[str, Chats],
    features: Features,
    *,
    n: int = 40,
    tokens_per_source: int | None = None,
    sinks: Sinks = "spare",
    batch_size: int = 64,
    store: Store | None = None,
) -> dict[FeatureKey, dict[str, float]]:
    """Return {(layer, index, side): {source: share}} of the n most active tokens.

    The first token of a row never counts. Every source contributes as many tokens as the smallest source, so
    larger sources are not favoured. If a direction is active on fewer than n tokens, only these count. A
    direction that is never active has shares of zero.

    Args:
        tokens_per_source: largest number of tokens of each source.
        sinks: "spare" sets attention sinks to zero, so they are never among the most active tokens. "include"
            keeps their values.
        store: where the result is cached; default: see `default_store`.

    Raises:
        ValueError: fewer than two sources, or n below 1.
    """
    if len(texts) < 2 or n < 1:
        raise ValueError(f"expected two sources or more and n >= 1, got {list(texts)} and n={n}")
    key = features.fingerprint and {
        "format": FORMAT,
        "model": fingerprint(model),
        "texts": [[name, chats.fingerprint] for name, chats in texts.items()],
        "features": features.fingerprint,
        "signed": features.two_sided,
        "n": n,
        "tokens_per_source": tokens_per_source,
        **key_of_sinks(sinks, width(model)),
    }

    def compute() -> list[list]:
        shares = _shares(model, texts, features, n, tokens_per_source, sinks, batch_size)
        return [[*feature, of_source] for feature, of_source in shares.items()]

    stored = fetch_json("source_shares", key or None, compute, models=(model,), store=store)
    return {(layer, index, side): of_source for layer, index, side, of_source in stored}


def _shares(
    model: nn.Module,
    texts: Mapping[str, Chats],
    features: Features,
    n: int,
    tokens_per_source: int | None,
    sinks: Sinks,
    batch_size: int,
) -> dict[FeatureKey, dict[str, float]]:
    values = {name: _values(model, chats, features, sinks, batch_size) for name, chats in texts.items()}
    smallest = min(len(next(iter(by_layer.values()))) for by_layer in values.values())
    size = min(smallest, tokens_per_source or smallest)
    shares: dict[FeatureKey, dict[str, float]] = {}
    for layer in features.layers:
        joined = torch.cat(
            [_evenly_spaced(values[name][layer], size) for name in texts]
        )  # [sources * size, k]
        for side in sides(features):
            signed = joined if side == "+" else -joined
            top, where = signed.topk(min(n, len(signed)), dim=0)
            for column, index in enumerate(features.indices(layer)):
                source = where[:, column][top[:, column] > 0] // size
                counts = torch.bincount(source, minlength=len(texts)).tolist()
                total = max(1, len(source))
                shares[layer, index, side] = {name: c / total for name, c in zip(texts, counts)}
    return shares


def directions_about(
    shares: Mapping[FeatureKey, Mapping[str, float]], source: str, *, min_share: float = 0.8
) -> dict[tuple[int, int], float]:
    """Return {(layer, index): share} of directions with at least `min_share` of their top tokens in `source`.

    Either side of a component may reach the minimum. The larger share is returned.
    """
    found: dict[tuple[int, int], float] = {}
    for (layer, index, _), share in shares.items():
        if share[source] >= min_share:
            found[layer, index] = max(share[source], found.get((layer, index), 0.0))
    return found


def _values(
    model: nn.Module, chats: Chats, features: Features, sinks: Sinks, batch_size: int
) -> dict[int, Float[Tensor, "tokens k"]]:
    """Return, by layer, the values of all features on all tokens except the first of each row."""
    limits = sink_limits(model, features.layers, sinks)
    parts: dict[int, list[Tensor]] = {layer: [] for layer in features.layers}
    for batch in stream_activations(model, chats, features.layers, batch_size=batch_size):
        keep = batch.position > 0
        for layer, values in parts.items():
            hidden = batch.hidden[layer][keep.to(batch.hidden[layer].device)]
            found = features.values(layer, hidden).float()
            values.append(found.masked_fill(is_sink(hidden, limits[layer])[:, None], 0.0).cpu())
    return {layer: torch.cat(values) for layer, values in parts.items()}


def _evenly_spaced(values: Float[Tensor, "tokens k"], n: int) -> Float[Tensor, "n k"]:
    """Return n of the rows, evenly spaced."""
    return values[torch.linspace(0, len(values) - 1, n).round().long()]
