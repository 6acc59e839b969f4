"""Find what fine-tuning changed: principal components of (tuned - base) hidden states on the same tokens.

With x = h_tuned - h_base for every token, the scatter matrix S = sum (x - mean)(x - mean)^T is updated batch
by batch (covariance.py). Its eigenvectors are the principal components. This is exact PCA in d x d memory
for any number of tokens. CAFT takes the differences on generic chat text (arXiv 2507.16795, section 3).

Attention sinks are left out by default. Their hidden states are so long that a small relative difference
between two models is most of the variance, and the first component would describe the sink.

PCA does not determine the sign of a component. Signs are chosen here so that the mean difference tuned - base
has a positive projection on every component.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.chats.reading import key_of_place
from caft_utils.directions.covariance import StreamingCovariance
from caft_utils.directions.model_streams import shared_or_by_layer, stream_together
from caft_utils.directions.subspace import Directions
from caft_utils.residual import Tokens, width
from caft_utils.sinks import Sinks, key_of_sinks
from caft_utils.stored_results import fetch_result

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give different directions
KIND = "directions"
NAMED = ("method", "tuned", "base", "data", "tokens", "centre", "sinks")  # entries of the key in `about`


def principal_axes(scatter: Float[Tensor, "d d"], k: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "k d"]]:
    """Return the shares of the variance and, as rows, the k leading eigenvectors of a scatter matrix."""
    values, vectors = torch.linalg.eigh(scatter)
    return values.flip(0)[:k].clamp(min=0) / scatter.trace(), vectors.T.flip(0)[:k]


@checked
def pca_of_difference(
    tuned: nn.Module | Sequence[nn.Module],
    base: nn.Module,
    chats: Chats,
    layers: Sequence[int],
    *,
    k: int = 8,
    tokens: Tokens = "all",
    centre: bool = True,
    sinks: Sinks = "spare",
    batch_size: int = 32,
    store: Store | None = None,
    progress: bool = False,
) -> Directions:
    """Return the k directions at each layer along which `tuned` differs most from `base`, largest first.

    Args:
        tuned: the fine-tuned model, or several that differ in their seed. The differences of each model are
            centred separately and the scatter matrices are added, so the leading components are those that
            the models share.
        chats: the text on which the models are compared. All models read the same tokens.
        tokens: which tokens to read, see `caft_utils.chats.reading`: "all", "answer", "last_prompt", or
            positions for each row. CAFT uses the answers of the misaligned model.
        centre: subtract the mean difference first. Without it, the first component tends to be the mean.
        sinks: "spare" leaves out tokens that are attention sinks in one of the models, "include" counts them.
        store: where the result is cached; default: see `default_store`.
        progress: show a progress bar.

    Returns:
        Directions with `about` = method, tuned, base, data, tokens, centre and count (of tokens; by layer if
        sinks make it differ), and by layer the `explained_variance` of each component (a share of 1) and the
        `mean` difference.

    Raises:
        ValueError: the models differ in width, there are no more tokens than components, or the models have
            equal hidden states.
        IndexError: a layer is out of range.
    """
    from caft_utils.models import fingerprint

    references = _references(tuned, base)
    if not 1 <= k <= width(base):
        raise ValueError(f"k must be 1 to {width(base)}, the width of the model, got {k}")
    layers = sorted(set(layers))
    key = {
        "format": FORMAT,
        "method": "pca_of_difference",
        "tuned": [fingerprint(model) for model in references],
        "base": fingerprint(base),
        "data": chats.fingerprint,
        "layers": layers,
        "k": k,
        **key_of_place(tokens, chats),
        "centre": centre,
        **key_of_sinks(sinks, width(base)),
    }
    options = {"tokens": tokens, "sinks": sinks, "batch_size": batch_size, "progress": progress}

    def compute() -> Directions:
        parts = _covariances(references, base, chats, layers, **options)
        return _shared_components(parts, layers, k, key)

    models = (*references, base)
    return fetch_result(
        KIND, key, compute, save=Directions.save, load=Directions.load, models=models, store=store
    )


@checked
def difference_scatter(
    tuned: nn.Module | Sequence[nn.Module],
    base: nn.Module,
    chats: Chats,
    layers: Sequence[int],
    *,
    tokens: Tokens = "all",
    sinks: Sinks = "spare",
    batch_size: int = 32,
    progress: bool = False,
) -> dict[int, Float[Tensor, "d d"]]:
    """Return the scatter matrix that `pca_of_difference` decomposes, by layer, in float64 on the CPU.

    The differences of each model are centred, and the scatter matrices of several models are added.

    Raises:
        ValueError: there is no tuned model, or the models differ in width.
        IndexError: a layer is out of range.
    """
    references = _references(tuned, base)
    options = {"tokens": tokens, "sinks": sinks, "batch_size": batch_size, "progress": progress}
    parts = _covariances(references, base, chats, sorted(set(layers)), **options)
    return {layer: sum(part[layer].scatter().cpu() for part in parts) for layer in parts[0]}


def _references(tuned: nn.Module | Sequence[nn.Module], base: nn.Module) -> list[nn.Module]:
    """Return the fine-tuned models as a list, after a check of their widths."""
    references = list(tuned) if isinstance(tuned, Sequence) else [tuned]
    if not references:
        raise ValueError("`tuned` is an empty list; give at least one fine-tuned model")
    if {width(model) for model in references} != {width(base)}:
        raise ValueError(
            f"tuned and base differ in width: {[width(m) for m in references]} and {width(base)}"
        )
    return references


def _covariances(
    references: Sequence[nn.Module], base: nn.Module, chats: Chats, layers: Sequence[int], **options
) -> list[dict[int, StreamingCovariance]]:
    """Return, for each reference, the covariance of its differences from the base by layer."""
    statistics = [{layer: StreamingCovariance(width(base)) for layer in layers} for _ in references]
    for (before, *afters), kept in stream_together([base, *references], chats, layers, **options):
        for covariances, after in zip(statistics, afters, strict=True):
            for layer in layers:
                x = after.hidden[layer]
                change = x - before.hidden[layer].to(x.device)
                if not kept[layer].all():
                    change = change[kept[layer].nonzero()[:, 0].to(x.device)]
                covariances[layer].update(change)
    return statistics


def _shared_components(
    statistics: Sequence[dict[int, StreamingCovariance]],
    layers: Sequence[int],
    k: int,
    key: dict[str, Any],
) -> Directions:
    """Return the leading eigenvectors of the summed scatter matrices; `about` takes its names from `key`."""
    rows, explained, means = {}, {}, {}
    for layer in layers:
        parts = [covariances[layer] for covariances in statistics]
        if parts[0].count <= k:
            raise ValueError(
                f"{parts[0].count} tokens are too few for {k} components; give more rows or a smaller k"
            )
        first, *others = (part.scatter(key["centre"]) for part in parts)
        scatter = sum((other.to(first.device) for other in others), first)
        if scatter.trace() == 0:
            raise ValueError(
                f"tuned and base have equal hidden states at layer {layer}: is `tuned` fine-tuned, "
                "and does its training change anything at or before this layer?"
            )
        mean = sum(part.mean.cpu() for part in parts) / len(parts)
        ratio, axes = (result.cpu() for result in principal_axes(scatter, k))
        rows[layer] = axes * torch.where(axes @ mean < 0, -1.0, 1.0)[:, None]
        explained[layer], means[layer] = ratio.tolist(), mean.tolist()
    return Directions(
        rows,
        {
            **{name: key[name] for name in NAMED if name in key},
            "count": shared_or_by_layer({layer: statistics[0][layer].count for layer in layers}),
            "explained_variance": explained,
            "mean": means,
        },
    )
