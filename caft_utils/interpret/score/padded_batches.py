"""Batches of prompts, padded on the left, for models whose next token is read or generated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from caft_utils.chats import pad_rows, pad_token_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def left_padded_batches(
    rows: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
    device: torch.device,
) -> Iterator[tuple[list[int], dict[str, Int[Tensor, "batch time"]]]]:
    """Yield batches of rows of similar length, as (indices into `rows`, keyword arguments of the model).

    All rows of a batch end in the same column. Positions count from each row's first token, because a model
    would otherwise count the padding too.
    """
    pad = pad_token_id(tokenizer)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        ids, mask = pad_rows([rows[i] for i in indices], pad, "left")
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        batch = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        yield indices, {name: tensor.to(device) for name, tensor in batch.items()}
