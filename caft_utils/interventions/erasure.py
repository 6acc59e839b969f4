"""Erasure: remove what a linear probe can read of a concept, with the least change (LEACE).

An eraser (directions/erasers.py) has at each layer what it reads, B [k, d], what it writes, A [d, k] with
B A = 1, and a mean mu. The edit is the oblique projection

    h  ->  h - A B (h - mu),        and the gradient g becomes  P^T g = g - B^T A^T g,   P = 1 - A B,

except at attention sinks. Unlike an orthogonal projection, P is not symmetric. The forward pass cannot use
B h, and the backward pass teaches nothing that is written along A. (Belrose et al. 2023, arXiv 2306.03819.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from caft_utils.interventions.base import Intervention
from caft_utils.sinks import Sinks

if TYPE_CHECKING:
    from caft_utils.directions.erasers import Eraser


class Erase(Intervention):
    """Apply an eraser to the residual stream at each of its layers.

    Args:
        eraser: the result of `leace`.
        sinks: "spare" leaves attention sinks as they are, "include" erases there, too.
    """

    def __init__(self, eraser: Eraser, *, sinks: Sinks = "spare"):
        super().__init__({"read": eraser.read, "write": eraser.write, "mean": eraser.mean}, sinks=sinks)
        self.ranks = {layer: len(rows) for layer, rows in eraser.read.items()}

    def extra_repr(self) -> str:
        return f"ranks={self.ranks}"

    def edit(self, layer: int, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        # In float32 or better, as in `Ablate`: in bfloat16 the product B A is not 1.
        with torch.autocast(hidden.device.type, enabled=False):
            exact = hidden if hidden.dtype == torch.float64 else hidden.float()
            read, write, mean = (self.vector(name, layer, exact) for name in ("read", "write", "mean"))
            return (exact - ((exact - mean) @ read.T) @ write).to(hidden.dtype)


def erase(eraser: Eraser, *, sinks: Sinks = "spare") -> Erase:
    """Return the intervention that applies `eraser`, the result of `leace`, sparing attention sinks.

    Use it as `finetune(model, chats, during=erase(leace(model, rows, labels, layers)))`.
    """
    return Erase(eraser, sinks=sinks)
