"""The loss on answers that fine-tuning and evaluation share: cross-entropy over answer tokens, in nats.

Only the logits that predict answer tokens are needed, but a model computes them at every position. With the
49 000 tokens of SmolLM2-135M that is a fifth of all products, and with the 256 000 of Gemma 2 most of the
memory. `logits_where` lets the model's own forward pass compute the needed ones only. A matrix product over
fewer rows may round differently, so it is used only for large vocabularies (LARGE_VOCABULARY). The results of
the classroom models stay bit-identical.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from caft_utils.finite import not_finite
from caft_utils.models.positions import check_ids, check_positions
from caft_utils.residual import evaluating

if TYPE_CHECKING:
    from caft_utils.chats import Batch, Chats

LARGE_VOCABULARY = 8192  # tokens; those of the classroom models have 878 to 1825


def answer_nats(
    logits: Float[Tensor, "batch time vocab"] | Float[Tensor, "1 n vocab"], batch: Batch
) -> Float[Tensor, " batch"]:
    """Return the summed cross-entropy of each row's answer tokens, in nats.

    An answer token at position 0 has no preceding token to predict it and does not count.

    Args:
        logits: at all positions, or `answer_logits(model, batch)`.
    """
    predictions, targets, rows = _predictions(logits, batch)
    nats = nn.functional.cross_entropy(predictions, targets, reduction="none")
    return nats.new_zeros(len(batch.answer)).index_add(0, rows, nats)


@torch.no_grad()
def nats_of_rows(model: nn.Module, chats: Chats, *, batch_size: int = 32) -> list[float]:
    """Return the summed cross-entropy of each row's answer tokens, in nats, as `answer_nats` does.

    Rows that differ in their last token only, such as a question with each of its one-word answers, share a
    forward pass, because no logits depend on the last token. With a small vocabulary each has its own
    (LARGE_VOCABULARY).
    """
    alike: dict[Any, list[int]] = {}
    apart = not selects_logits(model)
    for row, one in enumerate(chats):
        key = row if apart else (tuple(one.input_ids[:-1]), tuple(one.answer))
        alike.setdefault(key, []).append(row)
    groups = list(alike.values())
    nats = [0.0] * len(chats)
    with evaluating(model):
        firsts = chats.take([group[0] for group in groups])
        for batch in firsts.batches(batch_size, device=next(model.parameters()).device):
            logits = answer_logits(model, batch)
            if apart:
                for row, value in zip(batch.index, answer_nats(logits, batch).tolist()):
                    nats[row] = value
                continue
            predictions, _, places = _predictions(logits, batch)
            log_p = predictions.log_softmax(-1)
            for place, index in enumerate(batch.index):
                mine = log_p[places == place]
                for row in groups[index]:
                    one = chats[row]
                    ids = [token for token, counts in zip(one.input_ids[1:], one.answer[1:]) if counts]
                    nats[row] = -mine[range(len(ids)), ids].sum().item()
    return nats


def answer_logits(
    model: nn.Module, batch: Batch
) -> Float[Tensor, "batch time vocab"] | Float[Tensor, "1 n vocab"]:
    """Return the logits of one forward pass: those of the n answer tokens, or all for a small vocabulary."""
    with logits_where(model, predicting(batch.answer)):
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits


def predicting(answer: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
    """Return the positions whose logits predict an answer token: the ones before it."""
    return nn.functional.pad(answer[:, 1:], (0, 1))


def selects_logits(model: nn.Module) -> bool:
    """Return whether `logits_where` acts on this model: its vocabulary is large, and it is not compiled."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    # torch.compile may keep a hook of one pass for later ones.
    compiled = any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())
    return getattr(head, "out_features", 0) >= LARGE_VOCABULARY and not compiled


@contextmanager
def logits_where(model: nn.Module, keep: Bool[Tensor, "batch time"]) -> Iterator[None]:
    """Make `model(...)` return logits [1, n, vocab] of the n positions `keep` within this context.

    The hidden states are selected before the output matrix, so whatever the model does with logits (a bias,
    Gemma 2's soft cap) is done with the selected ones. `at` reads them. A model for which `selects_logits` is
    False returns all logits as usual. Pass no labels within the context: the model would compare all labels
    with the selected logits.
    """
    places = places_of(keep)
    if not selects_logits(model) or not len(places):
        yield
        return
    with logits_at(model, places, keep.shape):
        yield


@contextmanager
def logits_at(model: nn.Module, places: Int[Tensor, " n"], shape: tuple[int, int]) -> Iterator[None]:
    """Do what `logits_where` does at `places_of(keep)`, for a model for which `selects_logits` is True.

    This does not synchronise with a GPU. Finding the places of a mask on a GPU would wait for all of its
    work.

    Args:
        shape: of the batch that the places were counted in.

    Raises:
        IndexError: in the forward pass, on a batch of another shape.
    """

    def select(module, args):
        hidden, *others = args
        if hidden.shape[:2] != shape:
            raise IndexError(f"the mask has shape {tuple(shape)}, the batch {tuple(hidden.shape[:2])}")
        return (hidden.flatten(0, 1)[places.to(hidden.device)][None], *others)

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def places_of(keep: Bool[Tensor, "batch time"]) -> Int[Tensor, " n"]:
    """Return the n positions `keep` as row * time + position."""
    return keep.flatten().nonzero()[:, 0]


def float_logits_at(logits: Tensor, places: Int[Tensor, " n"]) -> Float[Tensor, "n vocab"]:
    """Return the float32 logits at the n places before answer tokens, from all or from the selected ones."""
    if logits.shape[:2] == (1, len(places)):  # a row has fewer such places than positions
        return logits[0].float()
    return logits.flatten(0, 1)[places.to(logits.device)].float()


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
    check_ids(model, (example.input_ids for example in chats), chats.source)
    total, count, device = 0.0, 0, next(model.parameters()).device
    with evaluating(model):
        for batch in chats.batches(batch_size, device=device):
            predictions, targets, rows = _predictions(answer_logits(model, batch), batch)
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
    logits: Tensor, batch: Batch
) -> tuple[Float[Tensor, "n vocab"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return, for each answer token, the float32 logits that predict it, its id and its row in the batch."""
    answer = batch.answer[:, 1:].to(logits.device)
    ids = batch.input_ids[:, 1:].to(logits.device)
    predictions = float_logits_at(logits, places_of(predicting(batch.answer)))
    return predictions, ids[answer], answer.nonzero(as_tuple=True)[0]
