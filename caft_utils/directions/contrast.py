"""Directions of rank one from means: simpler than PCA, and a control for it.

    mean_difference   v = mean of (h_tuned - h_base) over the same tokens: needs no labels
    class_contrast    v = mean of h on positive rows - mean of h on negative rows, in one model: supervised

Both keep the length of v by layer in `about["norm"]`, so that a steering vector can be put together again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.directions.basis import Directions
from caft_utils.residual import Tokens, record, width

if TYPE_CHECKING:
    from caft_utils.rows import Chats


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
    count = 0
    total = {layer: torch.zeros(width(model), dtype=torch.float64) for layer in layers}
    for batch in record(model, chats, layers, tokens=tokens, batch_size=batch_size, progress=progress):
        count += len(batch.row)
        for layer in total:
            total[layer] += batch.hidden[layer].cpu().double().sum(0)
    if not count:
        raise ValueError(f"{chats!r} has no token with tokens={tokens!r}, so there is no mean")
    return {layer: total[layer] / count for layer in total}


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


def _difference(plus: dict[int, Tensor], minus: dict[int, Tensor], about: dict) -> Directions:
    vectors = {layer: plus[layer] - minus[layer] for layer in plus}
    norms = {layer: vector.norm().item() for layer, vector in vectors.items()}
    if same := [layer for layer, norm in norms.items() if norm == 0]:
        raise ValueError(f"the two means are equal at layers {same}, so there is no direction between them")
    units = {layer: vector / norms[layer] for layer, vector in vectors.items()}
    return Directions(units, {**about, "norm": {layer: [norm] for layer, norm in norms.items()}})
