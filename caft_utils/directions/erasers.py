"""LEACE: the affine map that erases a concept from hidden states and changes them least.

For hidden states x [d] with covariance S and mean mu, and one-hot labels z of K classes with the
cross-covariance C = Cov(x, z) [d, K], whose rank is k <= K - 1,

    W = S^(-1/2),    U = the left singular vectors of W C [d, k],    r(x) = x - (W^-1 U) (U^T W) (x - mu).

r(x) and z are uncorrelated, so no linear classifier of r(x) does better than the class frequencies. Of all
affine maps with this property, r has the smallest mean squared change, in every norm. (Belrose et al. 2023,
arXiv 2306.03819, theorem 4.3.)

Column j of C is p_j (mu_j - mu), with the share p_j and the mean mu_j of class j. Means and covariance are
collected in one pass, in memory that depends on d only. With fewer than about 10 d tokens the sample
covariance is unreliable. It is therefore shrunk towards a multiple of the identity by the share that
minimises the expected squared error for Gaussian x (oracle approximating shrinkage, Chen et al. 2010, arXiv
0907.4698, eq. 23). Any invertible W erases C exactly, so shrinkage affects only the norm in which the change
is smallest.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.chats.reading import key_of_place
from caft_utils.directions.covariance import StreamingCovariance
from caft_utils.directions.model_streams import stream_together
from caft_utils.residual import Tokens, width
from caft_utils.sinks import Sinks, key_of_sinks
from caft_utils.stored_results import fetch_tensors

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give a different eraser
PARTS = ("read", "write", "mean")
# A singular value of W C is at most 1, like a correlation. Smaller values than this count as rounding errors,
# and so do variances below this share of the largest.
SMALLEST = 1e-6


@dataclass(frozen=True, eq=False)
class Eraser:
    """The affine map x -> x - A B (x - mu) by layer.

    Attributes:
        read: {layer: B [k, d]}. write: {layer: A^T [k, d]}. B A is the identity. mean: {layer: mu [d]}.
    """

    read: Mapping[int, Float[Tensor, "k d"]]
    write: Mapping[int, Float[Tensor, "k d"]]
    mean: Mapping[int, Float[Tensor, " d"]]


@checked
def leace(
    model: nn.Module,
    chats: Chats,
    labels: Sequence[Hashable],
    layers: Sequence[int],
    *,
    tokens: Tokens = "all",
    sinks: Sinks = "spare",
    batch_size: int = 32,
    store: Store | None = None,
    progress: bool = False,
) -> Eraser:
    """Return the eraser of a concept with known labels. `erase` makes an intervention of it.

    Args:
        labels: the class of each row, or None for a row that does not count.
        store: where the result is cached; default: see `default_store`.

    Raises:
        ValueError: labels do not fit the rows, there are fewer than two classes, a class has no token to
            read, or the classes have equal means at a layer.
        IndexError: a layer is out of range.
    """
    from caft_utils.models import fingerprint

    if len(labels) != len(chats):
        raise ValueError(f"expected one of `labels` for each of {len(chats)} rows, got {len(labels)}")
    classes = list(dict.fromkeys(label for label in labels if label is not None))
    if len(classes) < 2:
        raise ValueError(f"a concept needs at least two classes, got {classes}")
    number = torch.tensor([-1 if label is None else classes.index(label) for label in labels])
    layers = sorted(set(layers))
    options = {"tokens": tokens, "sinks": sinks, "batch_size": batch_size, "progress": progress}

    def compute() -> dict[str, Tensor]:
        shape = (len(classes), width(model))
        total = {layer: torch.zeros(shape, dtype=torch.float64) for layer in layers}
        count = {layer: torch.zeros(len(classes), dtype=torch.float64) for layer in layers}
        joint = {layer: StreamingCovariance(width(model)) for layer in layers}
        for (batch,), kept in stream_together([model], chats, layers, **options):
            which = number[batch.row]
            for layer in layers:
                counted = kept[layer] & (which >= 0)
                hidden = batch.hidden[layer].cpu()[counted]
                total[layer].index_add_(0, which[counted], hidden.double())
                count[layer] += torch.bincount(which[counted], minlength=len(classes))
                joint[layer].update(hidden)
        tensors = {}
        for layer in layers:
            if empty := [classes[i] for i in (count[layer] == 0).nonzero().flatten().tolist()]:
                raise ValueError(f"classes {empty} have no token to read at layer {layer} ({tokens=})")
            fitted = fit_leace(joint[layer], total[layer], count[layer], f"layer {layer}")
            tensors |= {f"{name} {layer}": value for name, value in zip(PARTS, fitted)}
        return tensors

    key = {
        "format": FORMAT,
        "method": "leace",
        "model": fingerprint(model),
        "data": chats.fingerprint,
        "labels": number.tolist(),
        "layers": layers,
        **key_of_place(tokens, chats),
        **key_of_sinks(sinks, width(model)),
    }
    tensors = fetch_tensors("eraser", key, compute, models=(model,), store=store)
    return Eraser(*({layer: tensors[f"{name} {layer}"] for layer in layers} for name in PARTS))


def fit_leace(
    joint: StreamingCovariance,
    total: Float[Tensor, "classes d"],
    count: Float[Tensor, " classes"],
    where: str = "these vectors",
) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k d"], Float[Tensor, " d"]]:
    """Return (B, A^T, mu) in float64.

    Args:
        joint: mean and covariance of all vectors. total, count: sum and number of the vectors of each class.

    Raises:
        ValueError: all classes have the same mean, so there is nothing to erase.
    """
    n, mean = joint.count, joint.mean.cpu()
    contrasts = (total - count[:, None] * mean) / n  # C^T: row j is p_j (mu_j - mu)
    values, vectors = torch.linalg.eigh(shrunk(joint.scatter().cpu() / n, n))
    root = values.clamp(min=SMALLEST * float(values[-1])).sqrt()
    # In the basis of the eigenvectors W is a division by `root`.
    _, strength, rows = torch.linalg.svd((contrasts @ vectors) / root, full_matrices=False)
    keep = strength > SMALLEST
    keep[len(count) - 1 :] = False  # the means of K classes differ along K - 1 axes
    if not keep.any():
        raise ValueError(f"{where}: all classes have the same mean, so there is nothing to erase")
    return (rows[keep] / root) @ vectors.T, (rows[keep] * root) @ vectors.T, mean


def shrunk(covariance: Float[Tensor, "d d"], count: int) -> Float[Tensor, "d d"]:
    """Return the covariance of `count` vectors, shrunk towards the identity times the mean variance."""
    d = len(covariance)
    trace, square = covariance.trace(), covariance.square().sum()
    spread = (count + 1 - 2 / d) * (square - trace.square() / d)
    share = ((1 - 2 / d) * square + trace.square()) / spread if spread > 0 else torch.ones(())
    share = share.clamp(max=1.0)
    return (1 - share) * covariance + share * (trace / d) * torch.eye(d, dtype=covariance.dtype)
