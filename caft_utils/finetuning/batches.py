"""The batches of a run: the order of the rows, the tensors of a batch, and their loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from caft_utils.chats import Batch, Chats
from caft_utils.losses import float_logits_at, places_of, predicting

if TYPE_CHECKING:
    from caft_utils.finetuning.prefix import FrozenPrefix

IGNORED = -100  # the label of a position that has no loss


class RowOrder(torch.utils.data.Dataset):
    """All rows of a run in the order in which it sees them: one permutation after the other.

    A sampler would draw the order during training. The order here is fixed in advance, so it depends only on
    the seed, even after a resume.
    """

    def __init__(self, chats: Chats, size: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        epochs = -(-size // len(chats))
        order = [torch.randperm(len(chats), generator=generator) for _ in range(epochs)]
        self.order: list[int] = torch.cat(order)[:size].tolist()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> int:
        return self.order[i]


def collate(rows: list[int], chats: Chats, prefix: FrozenPrefix | None) -> dict[str, torch.Tensor]:
    """Return the inputs of the model for a batch of rows, with their hidden states after a prefix."""
    batch = Batch.of([chats[row] for row in rows], rows, chats.pad)
    labels = batch.input_ids.masked_fill(~batch.answer, IGNORED)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}
    # Found here on the CPU, because finding them on a GPU would wait for all of its work.
    inputs["places"] = places_of(predicting(batch.answer))
    return inputs if prefix is None else inputs | {"hidden": prefix.batch(rows)}


def loss_at_answers(outputs, labels, num_items_in_batch=None, *, places):
    """Return the loss that the model computes from labels, for logits that may leave out some positions.

    Args:
        num_items_in_batch: the answer tokens of all parts of an optimiser step.
        places: those before answer tokens, as `places_of` gives them.
    """
    predictions = float_logits_at(outputs.logits, places)
    targets = labels.flatten()[places + 1].to(predictions.device)
    total = nn.functional.cross_entropy(predictions, targets, reduction="sum")
    count = len(targets) if num_items_in_batch is None else num_items_in_batch
    return total / torch.as_tensor(count, device=total.device)
