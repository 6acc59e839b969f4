"""The loss on answers, as fine-tuning and evaluation define it: cross-entropy over answer tokens, in nats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.residual import evaluating

if TYPE_CHECKING:
    from caft_utils.chats import Batch, Chats


def answer_nats(logits: Float[Tensor, "batch time vocab"], batch: Batch) -> Float[Tensor, " batch"]:
    """Return the summed cross-entropy of each row's answer tokens, in nats.

    An answer token at position 0 has nothing before it and is left out.
    """
    target = batch.answer[:, 1:].to(logits.device)
    ids = batch.input_ids[:, 1:].to(logits.device)
    row, _ = target.nonzero(as_tuple=True)
    nats = nn.functional.cross_entropy(logits[:, :-1][target].float(), ids[target], reduction="none")
    return nats.new_zeros(len(logits)).index_add(0, row, nats)


@torch.no_grad()
def mean_answer_loss(model: nn.Module, chats: Chats, *, batch_size: int = 32) -> float:
    """Return the mean cross-entropy over all answer tokens of `chats`, in nats per token.

    Each token counts the same. An answer token at position 0 has nothing before it and is left out.

    Raises:
        ValueError: `chats` has no rows.
    """
    if not len(chats):
        raise ValueError(f"{chats.source} holds no rows to compute a loss on")
    total, count, device = 0.0, 0, next(model.parameters()).device
    with evaluating(model):
        for batch in chats.batches(batch_size, device=device):
            logits = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
            target = batch.answer[:, 1:].to(logits.device)
            ids = batch.input_ids[:, 1:].to(logits.device)
            losses = nn.functional.cross_entropy(logits[:, :-1][target].float(), ids[target], reduction="sum")
            total, count = total + losses.item(), count + int(target.sum())
    return total / count
