"""Label training rows of the gender task by gender and case of the pronoun, and measure their separation."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caft_utils.chats import Chats
from caft_utils.course.studies.gender_material import CASES, GENDERS
from caft_utils.features import Features
from caft_utils.residual import stream_activations

READ = {"tokens": "last_prompt"}


def row_labels(rows: Chats) -> list[tuple[str, str]]:
    """Return the gender and the case of the right pronoun of each training row."""
    words = [row["messages"][-1]["content"].strip() for row in rows.rows]
    return [(GENDERS[word], CASES[word]) for word in words]


def rows_by_gender(rows: Chats) -> tuple[Chats, Chats]:
    """Return the rows whose right pronoun is male, and those whose is female."""
    male = [gender == "male" for gender, _ in row_labels(rows)]
    return tuple(rows.take([i for i, one in enumerate(male) if one is which]) for which in (True, False))


def last_prompt_values(model: Any, rows: Chats, features: Features) -> dict[int, Float[Tensor, "rows k"]]:
    """Return the values of features at the last prompt token of each row, {layer: [rows, k]}."""
    out = {
        layer: torch.full((len(rows), len(features.indices(layer))), torch.nan) for layer in features.layers
    }
    for batch in stream_activations(model, rows, features.layers, **READ):
        for layer, values in out.items():
            # Batches group rows of similar length, so the order differs from that of the rows.
            values[batch.row] = features.values(layer, batch.hidden[layer].cpu().float())
    return out


def d_prime(x: Float[Tensor, "n k"], positive: Bool[Tensor, " n"]) -> Float[Tensor, " k"]:
    """Return the distance of two classes on each axis, in their pooled standard deviation."""
    a, b = x[positive], x[~positive]
    return (a.mean(0) - b.mean(0)).abs() / ((a.var(0) + b.var(0)) / 2).sqrt()
