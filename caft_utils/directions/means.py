"""Directions from means, simpler than PCA and a baseline for it.

    mean_difference   v = mean of (h_tuned - h_base) over the same tokens; needs no labels
    class_contrast    v = mean of h on positive rows - mean of h on negative rows, in one model; supervised
    class_means       the axes on which the means of several classes of tokens differ; supervised, upper bound

The first two store the length of v in `about["norm"]`, by layer. Multiply the unit direction by it to get the
steering vector v. Attention sinks are left out by default, see `caft_utils.sinks`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.chats.reading import key_of_place, where_to_read
from caft_utils.directions.subspace import Directions
from caft_utils.directions.together import one_or_by_layer, stream_together
from caft_utils.residual import ActivationBatch, Tokens, width
from caft_utils.sinks import Sinks, key_of_sinks
from caft_utils.stored_results import fetch_result

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store

FORMAT = 1  # raise it when the same key would give other directions


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
    sums = _sums(models, chats, layers, 1, lambda batch: torch.zeros_like(batch.row), **options)
    if empty := [layer for layer, count in sums[0].count.items() if not count]:
        raise ValueError(
            f"{chats!r} has no token with tokens={options['tokens']!r} at layers {empty} that is not an "
            "attention sink, so there is no mean"
        )
    return [{layer: one.total[layer][0] / one.count[layer][0] for layer in one.total} for one in sums]


@dataclass
class _Sums:
    """Sums over the hidden states of one model by layer.

    count: of the tokens in each group. total: the sum of their hidden states. squares: the sum of squared
    lengths over all groups.
    """

    count: dict[int, Float[Tensor, " groups"]]
    total: dict[int, Float[Tensor, "groups d"]]
    squares: dict[int, float]


def _sums(
    models: Sequence[nn.Module],
    chats: Chats,
    layers: Sequence[int],
    groups: int,
    group: Callable[[ActivationBatch], Tensor],
    **options,
) -> list[_Sums]:
    """Return the sums of each model over the same tokens.

    Args:
        group: maps a batch to the group of each token, -1 for tokens that do not count.
    """

    def zeros(*shape: int) -> dict[int, Tensor]:
        return {layer: torch.zeros(*shape, dtype=torch.float64) for layer in layers}

    sums = [_Sums(zeros(groups), zeros(groups, width(m)), dict.fromkeys(layers, 0.0)) for m in models]
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
        store: where the result is stored and read the next time; default: see `default_store`.

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

    return _stored(about, layers, compute, (*references, base), store)


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
        store: where the result is stored and read the next time; default: see `default_store`.

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

    return _stored(about, layers, compute, (model,), store)


@checked
def class_means(
    model: nn.Module,
    chats: Chats,
    labels: Sequence[Hashable],
    layers: Sequence[int],
    *,
    at: Sequence[int] | None = None,
    min_contrast: float = 0.25,
    tokens: Tokens = "all",
    sinks: Sinks = "spare",
    batch_size: int = 32,
    store: Store | None = None,
    progress: bool = False,
) -> Directions:
    """Return the axes that separate classes of tokens: the SVD of (class mean - grand mean), strongest first.

    K classes have at most K - 1 axes. The method needs ground-truth labels of the concept. Use it as an upper
    bound for the unsupervised methods.

    Args:
        labels: the class of each row, or None for a row that does not count.
        at: the position of the one token to read in each row, for example `last_token_positions(chats,
            words)`; the same as these positions as `tokens`.
        min_contrast: shortest distance of a class mean from the grand mean that is not treated as noise, in
            sd (the root mean squared distance of tokens from the grand mean). Closer class means are left
            out, and so are axes on which no class mean reaches this distance.
        store: where the result is stored and read the next time; default: see `default_store`.

    Returns:
        Directions with `about` = method, model, data, tokens, classes, count, min_contrast and
        `dropped_layers`, those without an axis. By layer, `norm` is the largest distance of a class mean on
        each axis, in sd.

    Raises:
        ValueError: labels or positions do not fit the rows, there are fewer than two classes, or no layer has
            an axis.
        IndexError: a layer is out of range.
    """
    from caft_utils.models import fingerprint

    if len(labels) != len(chats):
        raise ValueError(f"expected one of `labels` for each of {len(chats)} rows, got {len(labels)}")
    if at is not None:
        if tokens != "all":
            raise ValueError(f"`at` already says which tokens to read; leave out tokens={tokens!r}")
        tokens = at
    place = where_to_read(tokens, chats)
    classes = list(dict.fromkeys(label for label in labels if label is not None))
    if len(classes) < 2:
        raise ValueError(f"a contrast needs at least two classes, got {classes}")
    number = torch.tensor([-1 if label is None else classes.index(label) for label in labels])
    layers = sorted(set(layers))
    about = {
        "method": "class_means",
        "model": fingerprint(model),
        "data": chats.fingerprint,
        "tokens": place if isinstance(place, str) else "all",  # the key has the positions, under "at"
        "classes": [str(one) for one in classes],
        "min_contrast": min_contrast,
        **key_of_sinks(sinks, width(model)),
    }
    options = {"tokens": tokens, "sinks": sinks, "batch_size": batch_size, "progress": progress}

    def compute() -> Directions:
        (sums,) = _sums([model], chats, layers, len(classes), lambda batch: number[batch.row], **options)
        return _class_axes(sums, classes, min_contrast, about)

    positions = None if isinstance(place, str) else place
    if positions and all(len(entry) == 1 for entry in positions):
        positions = [entry[0] for entry in positions]  # the form in which `at` has always been stored
    labelled = about | {"labels": number.tolist(), "at": positions}
    return _stored(labelled, layers, compute, (model,), store)


def _class_axes(
    sums: _Sums, classes: Sequence[Hashable], min_contrast: float, about: dict[str, Any]
) -> Directions:
    """Return the axes of `class_means` from the sums over each class."""
    for layer, count in sums.count.items():
        if empty := [classes[i] for i in (count == 0).nonzero().flatten().tolist()]:
            raise ValueError(
                f"classes {empty} have no token to read at layer {layer} (tokens={about['tokens']!r})"
            )
    rows, norms = {}, {}
    for layer, total in sums.total.items():
        count = sums.count[layer]
        grand = total.sum(0) / count.sum()
        sd = (sums.squares[layer] / count.sum() - grand @ grand).clamp(min=0).sqrt()
        contrasts = (total / count[:, None] - grand) / sd.clamp(min=1e-12)
        contrasts = contrasts[contrasts.norm(dim=1) >= min_contrast]
        axes = torch.linalg.svd(contrasts, full_matrices=False).Vh[: len(classes) - 1]
        largest = (contrasts @ axes.T).abs().amax(0) if len(contrasts) else torch.zeros(0)
        if (keep := largest >= max(min_contrast, 1e-6)).any():
            rows[layer], norms[layer] = axes[keep], largest[keep].tolist()
    if not rows:
        raise ValueError(
            f"no class mean is {min_contrast} sd away from the grand mean at any of the layers "
            f"{list(sums.total)}; check the labels, read other tokens or layers, or lower min_contrast"
        )
    about = about | {
        "count": one_or_by_layer({layer: [int(n) for n in count] for layer, count in sums.count.items()}),
        "dropped_layers": sorted(set(sums.total) - set(rows)),
        "norm": norms,
    }
    return Directions(rows, about)


def _stored(
    about: dict[str, Any],
    layers: Sequence[int],
    compute: Callable[[], Directions],
    models: Sequence[nn.Module],
    store: Store | None,
) -> Directions:
    key = {"format": FORMAT, **about, "layers": sorted(set(layers))}
    return fetch_result(
        "directions", key, compute, save=Directions.save, load=Directions.load, models=models, store=store
    )


def _difference(plus: dict[int, Tensor], minus: dict[int, Tensor], about: dict) -> Directions:
    """Return the unit vectors of plus - minus, with their lengths in `about["norm"]`."""
    vectors = {layer: plus[layer] - minus[layer] for layer in plus}
    norms = {layer: vector.norm().item() for layer, vector in vectors.items()}
    if same := [layer for layer, norm in norms.items() if norm == 0]:
        raise ValueError(f"the two means are equal at layers {same}, so there is no direction between them")
    units = {layer: vector / norms[layer] for layer, vector in vectors.items()}
    return Directions(units, {**about, "norm": {layer: [norm] for layer, norm in norms.items()}})
