"""Orthonormal bases that keep the order and the signs of the given rows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

ORTHONORMAL_TOLERANCE = 1e-5  # largest entry of |Q Q^T - I| at which rows count as orthonormal
DEPENDENT_BELOW = 1e-6  # a row is dependent if its new part is a smaller share of its length


def orthonormal_rows(
    rows: Float[Tensor, "n d"], where: str, *, skip_dependent: bool = False
) -> Float[Tensor, "k d"]:
    """Return an orthonormal basis of the span of `rows`, as float32 on the CPU.

    Row i of the basis is the part of the given row i that is orthogonal to the rows before it, scaled to
    length 1. Rows that are already orthonormal are returned unchanged, so that their fingerprint does not
    change.

    Args:
        rows: a single vector [d] counts as one row.
        where: named in error messages, for example "layer 3".
        skip_dependent: leave out rows that are linear combinations of the rows before them, instead of
            raising an error.

    Raises:
        ValueError: there is no row, a value is not finite, or a row is linearly dependent.
    """
    rows = torch.atleast_2d(torch.as_tensor(rows).detach().float().cpu())
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"{where}: expected a tensor [k, d] with k >= 1, got shape {tuple(rows.shape)}")
    if not rows.isfinite().all():
        bad = (~rows.isfinite()).any(1).nonzero().flatten().tolist()
        raise ValueError(f"{where}: rows {bad} have values that are not finite")
    if (rows @ rows.T - torch.eye(len(rows))).abs().max() <= ORTHONORMAL_TOLERANCE:
        return rows.clone()
    rows = rows.double()
    while True:
        # rows^T = Q R. Entry i of the diagonal of R is the signed length of the part of row i that is new.
        q, r = torch.linalg.qr(rows.T)
        added = r.diagonal()  # min(k, d) entries: more rows than dimensions are dependent in any case
        is_new = added.abs() > DEPENDENT_BELOW * rows.norm(dim=1)[: len(added)]
        if is_new.all() and len(added) == len(rows):
            return (q * added.sign()).T.float().contiguous()
        first = int((~is_new).nonzero()[0]) if not is_new.all() else len(added)
        if not skip_dependent:
            raise ValueError(
                f"{where}: row {first} is zero or a combination of the rows before it; leave it out"
            )
        rows = torch.cat(
            [rows[:first], rows[first + 1 :]]
        )  # the columns of Q after a dependent row are invalid
