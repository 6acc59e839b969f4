"""Find the axes along which class means differ: a supervised upper bound for other methods."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from caft_utils.arguments import checked
from caft_utils.chats.reading import where_to_read
from caft_utils.directions.model_streams import shared_or_by_layer
from caft_utils.directions.subspace import Directions
from caft_utils.directions.sums import GroupSums, stored_directions, sums_by_group
from caft_utils.residual import Tokens, width
from caft_utils.sinks import Sinks, key_of_sinks

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store


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
            words)`. Passing these positions as `tokens` has the same effect.
        min_contrast: smallest distance of a class mean from the grand mean that does not count as noise, in
            sd (the root mean squared distance of tokens from the grand mean). Closer class means are left
            out, and so are axes on which no class mean reaches this distance.
        store: where the result is cached; default: see `default_store`.

    Returns:
        Directions with `about` = method, model, data, tokens, classes, count, min_contrast and
        `dropped_layers` (the layers without an axis). By layer, `norm` is the largest distance of a class
        mean on each axis, in sd.

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
        (sums,) = sums_by_group(
            [model], chats, layers, len(classes), lambda batch: number[batch.row], **options
        )
        return _class_axes(sums, classes, min_contrast, about)

    positions = None if isinstance(place, str) else place
    if positions and all(len(entry) == 1 for entry in positions):
        positions = [entry[0] for entry in positions]  # stored results hold `at` in this form
    labelled = about | {"labels": number.tolist(), "at": positions}
    return stored_directions(labelled, layers, compute, (model,), store)


def _class_axes(
    sums: GroupSums, classes: Sequence[Hashable], min_contrast: float, about: dict[str, Any]
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
        "count": shared_or_by_layer({layer: [int(n) for n in count] for layer, count in sums.count.items()}),
        "dropped_layers": sorted(set(sums.total) - set(rows)),
        "norm": norms,
    }
    return Directions(rows, about)
