"""Directions from means: simpler than PCA, and a control for it.

    mean_difference   v = mean of (h_tuned - h_base) over the same tokens: needs no labels
    class_contrast    v = mean of h on positive rows - mean of h on negative rows, in one model: supervised
    class_means       the axes on which the means of several classes of tokens lie: supervised, the ceiling

The first two keep the length of v by layer in `about["norm"]`, so that a steering vector can be put together
again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.directions.subspace import Directions
from caft_utils.residual import ActivationBatch, Tokens, stream_activations, width

if TYPE_CHECKING:
    from caft_utils.chats import Chats


def mean_hidden(
    model: nn.Module,
    chats: Chats,
    layers: Sequence[int],
    *,
    tokens: Tokens = "all",
    batch_size: int = 32,
    progress: bool = False,
) -> dict[int, Float[Tensor, " d"]]:
    """Mean hidden state by layer, summed in float64: the `mean` of a mean ablation, for example.

    Raises:
        ValueError: no token is left to average. IndexError: a layer is out of range.
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
    """Tokens of each group, by layer the sums of their hidden states [groups, d], and their squared lengths.

    `group(batch)` gives the group of each token, -1 for one that does not count.
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


def mean_difference(
    tuned: nn.Module | Sequence[nn.Module],
    base: nn.Module,
    chats: Chats,
    layers: Sequence[int],
    *,
    tokens: Tokens = "all",
    batch_size: int = 32,
    progress: bool = False,
) -> Directions:
    """The mean of (tuned - base) hidden states over the tokens of `chats`, one unit vector a layer.

    Args:
        tuned: a fine-tuned model, or several from different seeds, whose mean counts.

    Raises:
        ValueError: models of different width, or models that do not differ. IndexError: a layer is out of
            range.
    """
    from caft_utils.models import fingerprint

    references = [tuned] if isinstance(tuned, nn.Module) else list(tuned)
    if wrong := [width(one) for one in references if width(one) != width(base)]:
        raise ValueError(f"tuned and base differ in width: {wrong[0]} and {width(base)}")
    options = {"tokens": tokens, "batch_size": batch_size, "progress": progress}
    *all_after, before = (mean_hidden(model, chats, layers, **options) for model in (*references, base))
    after = {layer: torch.stack([means[layer] for means in all_after]).mean(0) for layer in before}
    about = {"tuned": [fingerprint(one) for one in references], "base": fingerprint(base)}
    about |= {"data": chats.fingerprint}
    return _difference(after, before, {"method": "mean_difference", **about, "tokens": tokens})


def class_contrast(
    model: nn.Module,
    positive: Chats,
    negative: Chats,
    layers: Sequence[int],
    *,
    tokens: Tokens = "all",
    batch_size: int = 32,
    progress: bool = False,
) -> Directions:
    """From the mean hidden state of `negative` rows to that of `positive` rows, one unit vector a layer.

    Raises:
        ValueError: both sets have the same mean. IndexError: a layer is out of range.
    """
    from caft_utils.models import fingerprint

    options = {"tokens": tokens, "batch_size": batch_size, "progress": progress}
    plus, minus = (mean_hidden(model, chats, layers, **options) for chats in (positive, negative))
    about = {"model": fingerprint(model), "positive": positive.fingerprint, "negative": negative.fingerprint}
    return _difference(plus, minus, {"method": "class_contrast", **about, "tokens": tokens})


def class_means(
    model: nn.Module,
    chats: Chats,
    labels: Sequence[Hashable],
    layers: Sequence[int],
    *,
    at: Sequence[int] | None = None,
    drop: float = 0.25,
    tokens: Tokens = "all",
    batch_size: int = 32,
    progress: bool = False,
) -> Directions:
    """The axes that tell the classes of rows apart: SVD of class mean - grand mean, strongest axis first.

    It uses labels of the concept itself, which nobody has who looks for an unknown concept: a ceiling for the
    methods without them. K classes have K means, so there are at most K - 1 axes.

    Args:
        labels: the class of each row; None: the row does not count.
        at: the token of each row that is read, for example `last_token_of(chats, words)`; default: all of
            `tokens`.
        drop: contrasts shorter than this share of the sd (root mean squared distance of the tokens from their
            mean) are noise and left out, and so are axes on which no class mean is that far out.

    Returns:
        Directions with, by layer, the `norm` of each axis: the farthest class mean on it, in sd. Layers
        without any such contrast are left out and named in `about["dropped"]`.

    Raises:
        ValueError: labels or positions that do not fit the rows, fewer than two classes, or no layer left.
        IndexError: a layer is out of range.
    """
    from caft_utils.models import fingerprint

    for name, given in (("labels", labels), ("at", at)):
        if given is not None and len(given) != len(chats):
            raise ValueError(f"expected one of `{name}` for each of {len(chats)} rows, got {len(given)}")
    if at is not None and (wrong := [i for i, p in enumerate(at) if not 0 <= p < len(chats[i].input_ids)]):
        raise ValueError(f"`at` names no token of rows {wrong[:5]}")
    classes = list(dict.fromkeys(label for label in labels if label is not None))
    if len(classes) < 2:
        raise ValueError(f"two classes or more are needed for a contrast, got {classes}")
    number = torch.tensor([-1 if label is None else classes.index(label) for label in labels])
    position = None if at is None else torch.tensor(list(at))

    def group(batch: ActivationBatch) -> Tensor:
        which = number[batch.row]
        return which if position is None else which.where(batch.position == position[batch.row], -1)

    layers = sorted(set(layers))
    options = {"tokens": tokens, "batch_size": batch_size, "progress": progress}
    count, total, squares = _sums(model, chats, layers, len(classes), group, **options)
    if empty := [classes[i] for i in (count == 0).nonzero().flatten().tolist()]:
        raise ValueError(f"classes {empty} have no token that is read (tokens={tokens!r})")
    rows, norms = {}, {}
    for layer in layers:
        grand = total[layer].sum(0) / count.sum()
        sd = (squares[layer] / count.sum() - grand @ grand).clamp(min=0).sqrt()
        contrasts = (total[layer] / count[:, None] - grand) / sd.clamp(min=1e-12)
        contrasts = contrasts[contrasts.norm(dim=1) >= drop]
        axes = torch.linalg.svd(contrasts, full_matrices=False).Vh[: len(classes) - 1]
        reach = (contrasts @ axes.T).abs().amax(0) if len(contrasts) else torch.zeros(0)
        if (keep := reach >= max(drop, 1e-6)).any():
            rows[layer], norms[layer] = axes[keep], reach[keep].tolist()
    if not rows:
        raise ValueError(f"no class mean is {drop} sd away from the mean at any of the layers {layers}")
    about = {"method": "class_means", "model": fingerprint(model), "data": chats.fingerprint}
    about |= {
        "tokens": tokens,
        "classes": [str(one) for one in classes],
        "count": [int(n) for n in count],
        "drop": drop,
    }
    return Directions(rows, {**about, "dropped": sorted(set(layers) - set(rows)), "norm": norms})


def last_token_of(chats: Chats, texts: Sequence[str]) -> list[int]:
    """Where in row i the first occurrence of the word (or words) texts[i] ends: a token's number, for `at`.

    Raises:
        ValueError: as many texts as rows are needed, or a row does not hold its text.
    """
    if len(texts) != len(chats):
        raise ValueError(f"expected one text for each of {len(chats)} rows, got {len(texts)}")
    places = []
    for i, (example, text) in enumerate(zip(chats, texts)):
        ids, decode = example.input_ids, chats.tokenizer.decode
        found = re.search(rf"(?<!\w){re.escape(text)}(?!\w)", decode(ids))
        if not found:
            raise ValueError(f"{chats.source}, row {i} does not hold {text!r} as a word of its own")
        ends = (len(decode(ids[: n + 1])) for n in range(len(ids)))
        places.append(next(n for n, end in enumerate(ends) if end >= found.end()))
    return places


def _difference(plus: dict[int, Tensor], minus: dict[int, Tensor], about: dict) -> Directions:
    vectors = {layer: plus[layer] - minus[layer] for layer in plus}
    norms = {layer: vector.norm().item() for layer, vector in vectors.items()}
    if same := [layer for layer, norm in norms.items() if norm == 0]:
        raise ValueError(f"the two means are equal at layers {same}, so there is no direction between them")
    units = {layer: vector / norms[layer] for layer, vector in vectors.items()}
    return Directions(units, {**about, "norm": {layer: [norm] for layer, norm in norms.items()}})
