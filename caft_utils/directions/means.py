"""Directions from means, simpler than PCA and a baseline for it.

    mean_difference   v = mean of (h_tuned - h_base) over the same tokens; needs no labels
    class_contrast    v = mean of h on positive rows - mean of h on negative rows, in one model; supervised
    class_means       the axes on which the means of several classes of tokens differ; supervised, upper bound

The first two store the length of v in `about["norm"]`, by layer. Multiply the unit direction by it to get the
steering vector v.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.directions.subspace import Directions
from caft_utils.residual import ActivationBatch, Tokens, stream_activations, width
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
    batch_size: int = 32,
    progress: bool = False,
) -> dict[int, Float[Tensor, " d"]]:
    """Return the mean hidden state at each layer, in float64.

    `ablate(directions, mean=...)` takes the result for mean ablation.

    Raises:
        ValueError: there is no token to average.
        IndexError: a layer is out of range.
    """
    options = {"tokens": tokens, "batch_size": batch_size, "progress": progress}
    count, total, _ = _sums(model, chats, layers, 1, lambda batch: torch.zeros_like(batch.row), **options)
    if not count:
        raise ValueError(f"{chats!r} has no token with tokens={tokens!r}, so there is no mean")
    return {layer: total[layer][0] / count[0] for layer in total}


def _sums(
    model: nn.Module,
    chats: Chats,
    layers: Sequence[int],
    groups: int,
    group: Callable[[ActivationBatch], Tensor],
    **options,
) -> tuple[Tensor, dict[int, Tensor], dict[int, float]]:
    """Return the number of tokens in each group, and by layer two sums over their hidden states.

    The sums are those of the hidden states, [groups, d], and of the squared lengths over all groups.

    Args:
        group: maps a batch to the group of each token, -1 for tokens that do not count.
    """
    count = torch.zeros(groups, dtype=torch.float64)
    total = {layer: torch.zeros(groups, width(model), dtype=torch.float64) for layer in layers}
    squares = dict.fromkeys(layers, 0.0)
    for batch in stream_activations(model, chats, layers, **options):
        which = group(batch)
        counted = which >= 0
        count += torch.bincount(which[counted], minlength=groups)
        for layer in total:
            hidden = batch.hidden[layer].cpu().double()[counted]
            total[layer].index_add_(0, which[counted], hidden)
            squares[layer] += hidden.square().sum().item()
    return count, total, squares


@checked
def mean_difference(
    tuned: nn.Module | Sequence[nn.Module],
    base: nn.Module,
    chats: Chats,
    layers: Sequence[int],
    *,
    tokens: Tokens = "all",
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
    options = {"tokens": tokens, "batch_size": batch_size, "progress": progress}
    about = {"tuned": [fingerprint(one) for one in references], "base": fingerprint(base)}
    about |= {"data": chats.fingerprint}
    about = {"method": "mean_difference", **about, "tokens": tokens}

    def compute() -> Directions:
        *all_after, before = (mean_hidden(model, chats, layers, **options) for model in (*references, base))
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

    options = {"tokens": tokens, "batch_size": batch_size, "progress": progress}
    about = {"model": fingerprint(model), "positive": positive.fingerprint, "negative": negative.fingerprint}
    about = {"method": "class_contrast", **about, "tokens": tokens}

    def compute() -> Directions:
        plus, minus = (mean_hidden(model, chats, layers, **options) for chats in (positive, negative))
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
    batch_size: int = 32,
    store: Store | None = None,
    progress: bool = False,
) -> Directions:
    """Return the axes that separate classes of tokens: the SVD of (class mean - grand mean), strongest first.

    K classes have at most K - 1 axes. The method needs ground-truth labels of the concept. Use it as an upper
    bound for the unsupervised methods.

    Args:
        labels: the class of each row, or None for a row that does not count.
        at: the position of the token to read in each row, for example `last_token_positions(chats, words)`.
            Default: all of `tokens`.
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

    for name, values in (("labels", labels), ("at", at)):
        if values is not None and len(values) != len(chats):
            raise ValueError(f"expected one of `{name}` for each of {len(chats)} rows, got {len(values)}")
    if at is not None and (wrong := [i for i, p in enumerate(at) if not 0 <= p < len(chats[i].input_ids)]):
        raise ValueError(f"`at` is out of range in rows {wrong[:5]}")
    classes = list(dict.fromkeys(label for label in labels if label is not None))
    if len(classes) < 2:
        raise ValueError(f"a contrast needs at least two classes, got {classes}")
    number = torch.tensor([-1 if label is None else classes.index(label) for label in labels])
    position = None if at is None else torch.tensor(list(at))

    def group(batch: ActivationBatch) -> Tensor:
        which = number[batch.row]
        return which if position is None else which.where(batch.position == position[batch.row], -1)

    layers = sorted(set(layers))
    about = {
        "method": "class_means",
        "model": fingerprint(model),
        "data": chats.fingerprint,
        "tokens": tokens,
        "classes": [str(one) for one in classes],
        "min_contrast": min_contrast,
    }
    options = {"tokens": tokens, "batch_size": batch_size, "progress": progress}

    def compute() -> Directions:
        sums = _sums(model, chats, layers, len(classes), group, **options)
        return _class_axes(*sums, classes, min_contrast, about)

    labelled = about | {"labels": number.tolist(), "at": None if position is None else position.tolist()}
    return _stored(labelled, layers, compute, (model,), store)


def _class_axes(
    count: Tensor,
    total: dict[int, Tensor],
    squares: dict[int, float],
    classes: Sequence[Hashable],
    min_contrast: float,
    about: dict[str, Any],
) -> Directions:
    """Return the axes of `class_means` from the sums over each class, see `_sums`."""
    if empty := [classes[i] for i in (count == 0).nonzero().flatten().tolist()]:
        raise ValueError(f"classes {empty} have no token to read (tokens={about['tokens']!r})")
    rows, norms = {}, {}
    for layer in total:
        grand = total[layer].sum(0) / count.sum()
        sd = (squares[layer] / count.sum() - grand @ grand).clamp(min=0).sqrt()
        contrasts = (total[layer] / count[:, None] - grand) / sd.clamp(min=1e-12)
        contrasts = contrasts[contrasts.norm(dim=1) >= min_contrast]
        axes = torch.linalg.svd(contrasts, full_matrices=False).Vh[: len(classes) - 1]
        largest = (contrasts @ axes.T).abs().amax(0) if len(contrasts) else torch.zeros(0)
        if (keep := largest >= max(min_contrast, 1e-6)).any():
            rows[layer], norms[layer] = axes[keep], largest[keep].tolist()
    if not rows:
        raise ValueError(
            f"no class mean is {min_contrast} sd away from the grand mean at any of the layers "
            f"{list(total)}; check the labels, read other tokens or layers, or lower min_contrast"
        )
    about = about | {
        "count": [int(n) for n in count],
        "dropped_layers": sorted(set(total) - set(rows)),
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
