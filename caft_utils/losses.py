"""The loss on answers that fine-tuning and evaluation share: cross-entropy over answer tokens, in nats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from caft_utils.finite import not_finite
from caft_utils.models.positions import check_positions
from caft_utils.residual import evaluating

if TYPE_CHECKING:
    from caft_utils.chats import Batch, Chats


def answer_nats(logits: Float[Tensor, "batch time vocab"], batch: Batch) -> Float[Tensor, " batch"]:
    """Return the summed cross-entropy of each row's answer tokens, in nats.

    An answer token at position 0 has no preceding token to predict it and does not count.
    """
    predictions, targets, rows = _predictions(logits, batch)
    nats = nn.functional.cross_entropy(predictions, targets, reduction="none")
    return nats.new_zeros(len(logits)).index_add(0, rows, nats)


@torch.no_grad()
def mean_answer_loss(model: nn.Module, chats: Chats, *, batch_size: int = 32) -> float:
    """Return the mean cross-entropy over all answer tokens of `chats`, in nats per token.

    Every token has the same weight. An answer token at position 0 has no preceding token to predict it and
    does not count.

    Raises:
        ValueError: `chats` has no rows, no answer token that counts, or a row with more tokens than the model
            has positions.
        NotFiniteError: the loss of a token is NaN or infinite.
    """
    if not len(chats):
        raise ValueError(f"{chats.source} has no rows to compute a loss on")
    check_positions(model, chats.lengths, chats.source)
    total, count, device = 0.0, 0, next(model.parameters()).device
    with evaluating(model):
        for batch in chats.batches(batch_size, device=device):
            logits = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
            predictions, targets, rows = _predictions(logits, batch)
            loss = nn.functional.cross_entropy(predictions, targets, reduction="sum").item()
            if not math.isfinite(loss):
                nats = nn.functional.cross_entropy(predictions, targets, reduction="none")
                bad = rows[~nats.isfinite()].tolist()
                not_finite(
                    f"losses of {type(model).__name__} on {chats.source}", [batch.index[i] for i in bad]
                )
            total += loss
            count += len(targets)
    if not count:
        raise ValueError(f"{chats.source} has no answer token after the first token of a row")
    return total / count


def _predictions(
    logits: Float[Tensor, "batch time vocab"], batch: Batch
) -> tuple[Float[Tensor, "n vocab"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return, for each answer token, the float32 logits that predict it, its id and its row in the batch."""
    answer = batch.answer[:, 1:].to(logits.device)
    ids = batch.input_ids[:, 1:].to(logits.device)
    return logits[:, :-1][answer].float(), ids[answer], answer.nonzero(as_tuple=True)[0]
