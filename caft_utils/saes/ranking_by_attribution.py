"""Rank latents by attribution: their first-order contribution to a metric of the logits.

The default metric is the loss on answers. A latent that the model uses to give these answers lowers their
loss, so it is at the NEGATIVE end: `ranking.top(n, end="-")`. The code released with CAFT takes the other
end, the latents that raise the loss on insecure code. Always state which end is meant.

Sources: arXiv 2507.16795, section 4; attribution patching, arXiv 2403.19647.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.chats.reading import read_mask, where_to_read
from caft_utils.code_fingerprints import user_code
from caft_utils.finite import check_finite
from caft_utils.losses import answer_nats
from caft_utils.models.positions import check_positions
from caft_utils.residual import Tokens, capture, edit, evaluating
from caft_utils.saes.collection import SAEs
from caft_utils.saes.quality import ENCODE_CHUNK
from caft_utils.saes.ranking import LatentRanking, check_width, fetch_ranking, provenance
from caft_utils.sinks import Sinks, is_sink, sink_limits
from caft_utils.store import digest

if TYPE_CHECKING:
    from caft_utils.chats import Batch, Chats
    from caft_utils.store import Store

Metric = Callable[[Tensor, "Batch"], Tensor]
"""(logits [batch, time, vocabulary], batch) -> one number for each row [batch], differentiable."""


@checked
def attribution(
    model: nn.Module,
    chats: Chats,
    saes: SAEs,
    metric: Metric | None = None,
    *,
    tokens: Tokens = "all",
    sinks: Sinks = "spare",
    batch_size: int = 16,
    store: Store | None = None,
    progress: bool = False,
) -> LatentRanking:
    """Return the contribution of each latent to `metric`.

    It is the sum of f * (v . d metric / d h) over the tokens of a row, averaged over rows.

    To first order, this is how much the metric would fall if the latent's part f * v were removed from the
    hidden state. One backward pass for each batch gives the gradients at all layers.

    Args:
        metric: returns one number for each row. Default: the summed cross-entropy of its answer tokens, in
            nats. See `answer_difference` for another.
        tokens: which tokens to read, see `caft_utils.chats.reading`. The first token of a row is always left
            out.
        sinks: "spare" leaves out attention sinks after the first token too, "include" counts them.
        store: where scores are cached. The scores of a custom metric are cached only if it has an attribute
            `fingerprint`, a string that identifies it together with its code.
        progress: show a progress bar.

    Raises:
        ValueError: the SAEs and the model differ in width, or the metric does not return one number for each
            row.
    """
    check_width(model, saes)
    name = getattr(metric, "__name__", repr(metric)) if metric else "answer_nats"
    about = provenance(
        "attribution", saes, chats, tokens, sinks, model=model, positive=f"the latent raises {name}"
    )
    return fetch_ranking(
        about | {"metric": name},
        lambda: _attribution(model, chats, saes, metric or answer_nats, tokens, sinks, batch_size, progress),
        models=(model,),
        store=store,
        metric=_name_of(metric) if metric else "",
    )


def _name_of(metric: Metric) -> str | None:
    """Return what identifies a metric, with the code of a user's own, or None if it has no fingerprint."""
    name = getattr(metric, "fingerprint", None)
    return name if name is None else name + user_code(metric)


def _attribution(
    model: nn.Module,
    chats: Chats,
    saes: SAEs,
    metric: Metric,
    tokens: Tokens,
    sinks: Sinks,
    batch_size: int,
    progress: bool,
) -> dict[int, Tensor]:
    from tqdm.auto import tqdm

    check_positions(model, chats.lengths, chats.source)
    place, limits = where_to_read(tokens, chats), sink_limits(model, saes.layers, sinks)
    device = next(model.parameters()).device
    totals = {layer: torch.zeros(sae.cfg.d_sae, dtype=torch.float64) for layer, sae in saes.items()}
    with evaluating(model):
        batches = chats.batches(batch_size, device=device)
        for batch in tqdm(batches, "attributing", -(-len(chats) // batch_size), disable=not progress):
            with torch.enable_grad(), _leaves(model, saes.layers) as hidden:
                logits = model(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
                ).logits
                value = metric(logits, batch)
                if value.shape != (len(batch.index),):
                    raise ValueError(
                        f"the metric must return one number for each row, shape ({len(batch.index)},), got "
                        f"{tuple(value.shape)}"
                    )
                where = f"of {type(model).__name__} on {chats.source}"
                check_finite(value.detach(), f"values of the metric {where}", batch.index)
                states = [hidden[layer] for layer in saes.layers]
                gradients = torch.autograd.grad(value.sum(), states)
            keep = read_mask(batch, place)
            keep[:, 0] = False
            for layer, h, g in zip(saes.layers, states, gradients):
                here = keep.to(h.device) & ~is_sink(h, limits[layer])
                check_finite(g[here], f"gradients at layer {layer} {where}")
                for x, dx in zip(h.detach()[here].split(ENCODE_CHUNK), g[here].split(ENCODE_CHUNK)):
                    f = saes.encode(layer, x)
                    totals[layer] += (f * (dx.float() @ saes.decoder(layer).T)).sum(0).double().cpu()
    return {layer: (total / len(chats)).float() for layer, total in totals.items()}


def answer_difference(right: Sequence[int], wrong: Sequence[int]) -> Metric:
    """Return a metric: logit of right[row] minus logit of wrong[row] where a row's last answer begins.

    Args:
        right, wrong: a token id for each row of the chats, for example the ids of two answer letters.

    Raises:
        ValueError: the numbers of ids differ, or (by the metric) a row has no answer after its first token.
    """
    if len(right) != len(wrong):
        raise ValueError(f"expected one token id for each row in both, got {len(right)} and {len(wrong)}")

    def answer_difference(logits: Tensor, batch: Batch) -> Tensor:
        before = batch.answer[:, 1:] & ~batch.answer[:, :-1]  # True at t if an answer begins at t + 1
        if not before.any(1).all():
            bad = [batch.index[i] for i in (~before.any(1)).nonzero().flatten().tolist()]
            raise ValueError(f"rows {bad} have no answer that begins after the first token")
        rows = torch.arange(len(logits), device=logits.device)
        steps = torch.arange(before.shape[1], device=before.device)
        at = logits[rows, (before * steps).argmax(1).to(logits.device)].float()
        pick = [torch.tensor([ids[i] for i in batch.index], device=logits.device) for ids in (right, wrong)]
        return at[rows, pick[0]] - at[rows, pick[1]]

    answer_difference.fingerprint = digest(
        ["answer_difference", [int(i) for i in right], [int(i) for i in wrong]]
    )
    return answer_difference


@contextmanager
def _leaves(model: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Capture hidden states with the graph cut at the lowest layer, so that the backward pass ends there."""
    cut = {min(layers): lambda hidden: hidden.detach().requires_grad_()}
    with (
        edit(model, cut),
        capture(model, layers, stop_early=False) as hidden,
    ):  # `edit` comes first, so `capture` sees the detached states
        yield hidden
