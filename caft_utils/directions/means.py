"""Directions from means, simpler than PCA and a baseline for it.

    mean_difference   v = mean of (h_tuned - h_base) over the same tokens; needs no labels
    class_contrast    v = mean of h on positive rows - mean of h on negative rows, in one model; supervised

Both store the length of v in `about["norm"]`, by layer. Multiply the unit direction by it to get the
steering vector v. Attention sinks are left out by default, see `caft_utils.sinks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.chats.reading import key_of_place
from caft_utils.directions.subspace import Directions
from caft_utils.directions.sums import stored_directions, sums_by_group
from caft_utils.residual import Tokens, width
from caft_utils.sinks import Sinks, key_of_sinks

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store


@checked
def mean_hidden(
    model: nn.Module,
    chats: Chats,
    layers: Sequence[int],
    *,
    tokens: Tokens = "all",
    sinks: Sinks = "spare",
    batch_size: int = 32,
    progress: bool = False,
) -> dict[int, Float[Tensor, " d"]]:
    """Return the mean hidden state at each layer, in float64.

    `ablate(directions, mean=...)` takes the result for mean ablation.

    Raises:
        ValueError: there is no token to average.
        IndexError: a layer is out of range.
    """
    options = {"tokens": tokens, "sinks": sinks, "batch_size": batch_size, "progress": progress}
    return _means([model], chats, layers, options)[0]


def _means(
    models: Sequence[nn.Module], chats: Chats, layers: Sequence[int], options: dict[str, Any]
) -> list[dict[int, Float[Tensor, " d"]]]:
    """Return the mean hidden states of each model by layer, over the same tokens."""
    sums = sums_by_group(models, chats, layers, 1, lambda batch: torch.zeros_like(batch.row), **options)
    if empty := [layer for layer, count in sums[0].count.items() if not count]:
        raise ValueError(
            f"{chats!r} has no token with tokens={options['tokens']!r} at layers {empty} that is not an "
            "attention sink, so there is no mean"
        )
    return [{layer: one.total[layer][0] / one.count[layer][0] for layer in one.total} for one in sums]


@checked
def mean_difference(
    tuned: nn.Module | Sequence[nn.Module],
    base: nn.Module,
    chats: Chats,
    layers: Sequence[int],
    *,
    tokens: Tokens = "all",
    sinks: Sinks = "spare",
    batch_size: int = 32,
    store: Store | None = None,
    progress: bool = False,
) -> Directions:
    """Return the mean of (tuned - base) hidden states over the tokens of `chats`, one unit vector per layer.

    Args:
        tuned: a fine-tuned model, or several that differ in their seed, which are averaged.
        store: where the result is cached; default: see `default_store`.

    Returns:
        Directions with `about` = method, tuned, base, data, tokens, and by layer the `norm` of the mean.

    Raises:
        ValueError: the models differ in width, or have equal means.
        IndexError: a layer is out of range.
    """
    from caft_utils.models import fingerprint

    references = [tuned] if isinstance(tuned, nn.Module) else list(tuned)
    if wrong := [width(one) for one in references if width(one) != width(base)]:
        raise ValueError(f"tuned and base differ in width: {wrong[0]} and {width(base)}")
    options = {"tokens": tokens, "sinks": sinks, "batch_size": batch_size, "progress": progress}
    about = {"tuned": [fingerprint(one) for one in references], "base": fingerprint(base)}
    about |= {"data": chats.fingerprint}
    about = {"method": "mean_difference", **about, **key_of_place(tokens, chats)}
    about |= key_of_sinks(sinks, width(base))

    def compute() -> Directions:
        *all_after, before = _means([*references, base], chats, layers, options)
        after = {layer: torch.stack([means[layer] for means in all_after]).mean(0) for layer in before}
        return _difference(after, before, about)

    return stored_directions(about, layers, compute, (*references, base), store)


@checked
def class_contrast(
    model: nn.Module,
    positive: Chats,
    negative: Chats,
    layers: Sequence[int],
    *,
    tokens: Tokens = "all",
    sinks: Sinks = "spare",
    batch_size: int = 32,
    store: Store | None = None,
    progress: bool = False,
) -> Directions:
    """Return the mean hidden state of `positive` minus that of `negative` chats, one unit vector per layer.

    Args:
        store: where the result is cached; default: see `default_store`.

    Returns:
        Directions with `about` = method, model, positive, negative, tokens, and by layer the `norm` of the
        difference.

    Raises:
        ValueError: both sets have the same mean.
        IndexError: a layer is out of range.
    """
    from caft_utils.models import fingerprint

    places = [tokens, tokens] if isinstance(tokens, str) else list(tokens)
    if len(places) != 2:
        raise ValueError(
            "class_contrast reads two sets of rows; give `tokens` as a name or as a pair, the positions in "
            f"the positive rows and those in the negative rows, got {len(places)} entries"
        )
    places = dict(zip(("positive", "negative"), places))
    options = {"sinks": sinks, "batch_size": batch_size, "progress": progress}
    about = {"model": fingerprint(model), "positive": positive.fingerprint, "negative": negative.fingerprint}
    sets = {"positive": positive, "negative": negative}
    read = {name: key_of_place(places[name], chats) for name, chats in sets.items()}
    about = {"method": "class_contrast", **about, "tokens": read["positive"]["tokens"]}
    if "at" in read["positive"] or "at" in read["negative"]:
        about["at"] = [one.get("at", one["tokens"]) for one in read.values()]
    about |= key_of_sinks(sinks, width(model))

    def compute() -> Directions:
        plus, minus = (
            mean_hidden(model, chats, layers, tokens=places[name], **options) for name, chats in sets.items()
        )
        return _difference(plus, minus, about)

    return stored_directions(about, layers, compute, (model,), store)


def _difference(plus: dict[int, Tensor], minus: dict[int, Tensor], about: dict) -> Directions:
    """Return the unit vectors of plus - minus, with their lengths in `about["norm"]`."""
    vectors = {layer: plus[layer] - minus[layer] for layer in plus}
    norms = {layer: vector.norm().item() for layer, vector in vectors.items()}
    if same := [layer for layer, norm in norms.items() if norm == 0]:
        raise ValueError(f"the two means are equal at layers {same}, so there is no direction between them")
    units = {layer: vector / norms[layer] for layer, vector in vectors.items()}
    return Directions(units, {**about, "norm": {layer: [norm] for layer, norm in norms.items()}})
