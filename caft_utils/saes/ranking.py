"""Which latents have to do with a fine-tuning? Three rankings, each with a score for every latent.

With f the activation of a latent, v its decoder row (of length 1) and h the hidden state:

    attribution         sum f * (v . d metric / d h)    what the latent gives to `metric`, to first order
    latent_difference   mean (f(h_tuned) - f(h_base))   how much more it fires after fine-tuning
    difference_latents  mean  f(h_tuned - h_base)       what the SAE reads in the change itself

Signs. A score is positive where the latent RAISES the metric, or is stronger in the tuned model. The default
metric of `attribution` is the loss on answers, so a latent that the model uses to give these answers, and
whose ablation raises their loss, is at the NEGATIVE end: `ranking.top(n, end="-")`. The release of CAFT takes
the other end, latents that raise the loss on insecure code; which end is meant must be said every time.
(arXiv 2507.16795, section 4; attribution patching: arXiv 2403.19647.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.losses import answer_nats
from caft_utils.models import fingerprint
from caft_utils.residual import Tokens, capture, edit, evaluating, stream_activations, width
from caft_utils.saes.collection import SAEs
from caft_utils.saes.quality import CHUNK

if TYPE_CHECKING:
    from caft_utils.chats import Batch, Chats

Metric = Callable[[Tensor, "Batch"], Tensor]
"""(logits [batch, time, vocabulary], the batch) -> one number a row [batch], differentiable."""


@dataclass(frozen=True)
class LatentRanking:
    """A score for every latent, {layer: [F]}; `about` says by which method and what its sign means."""

    scores: Mapping[int, Float[Tensor, " F"]]
    about: Mapping[str, Any] = field(default_factory=dict)

    def top(self, n: int, end: Literal["+", "-"] = "+") -> list[tuple[int, int, float]]:
        """The n most extreme (layer, latent, score) of all layers together; zero and the other sign never
        count, so there may be fewer."""
        every = [entry for layer in self.scores for entry in self._layer(layer, n, end)]
        return sorted(every, key=lambda entry: -abs(entry[2]))[:n]

    def per_layer(self, n: int, end: Literal["+", "-"] = "+") -> dict[int, list[int]]:
        """{layer: latent ids}, the n most extreme of each layer: what `sae_directions` takes."""
        return {layer: [i for _, i, _ in self._layer(layer, n, end)] for layer in self.scores}

    def _layer(self, layer: int, n: int, end: str) -> list[tuple[int, int, float]]:
        if end not in ("+", "-") or n < 1:
            raise ValueError(f"expected n >= 1 and end '+' or '-', got n={n} and end={end!r}")
        signed = self.scores[layer] if end == "+" else -self.scores[layer]
        values, ids = signed.sort(descending=True, stable=True)
        found = [(i, v) for v, i in zip(values[:n].tolist(), ids[:n].tolist()) if v > 0]
        return [(layer, i, v if end == "+" else -v) for i, v in found]


def attribution(
    model: nn.Module,
    chats: Chats,
    saes: SAEs,
    metric: Metric | None = None,
    *,
    tokens: Tokens = "all",
    batch_size: int = 16,
    progress: bool = False,
) -> LatentRanking:
    """What each latent gives to `metric`, a row on average: sum over tokens of f * (v . d metric / d h).

    To first order this is by how much the metric would fall if the latent's part f * v were taken out of the
    hidden state. One backward pass a batch gives the gradients of all layers.

    Args:
        metric: one number a row; the default is the cross-entropy of its answer tokens, summed, in nats. See
            `answer_difference` for another.
        tokens: those whose activations count: "all", or only "answer" tokens. Never the first of a row.

    Raises:
        ValueError: SAEs of another width than the model's, or a metric that does not give one number a row.
    """
    from tqdm.auto import tqdm

    _check(saes, model)
    device = next(model.parameters()).device
    totals = {layer: torch.zeros(sae.cfg.d_sae, dtype=torch.float64) for layer, sae in saes.items()}
    with evaluating(model):
        batches = chats.batches(batch_size, device=device)
        for batch in tqdm(batches, "attributing", -(-len(chats) // batch_size), disable=not progress):
            with torch.enable_grad(), _leaves(model, saes.layers) as hidden:
                logits = model(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
                ).logits
                value = (metric or answer_nats)(logits, batch)
                if value.shape != (len(batch.index),):
                    raise ValueError(
                        f"the metric must give one number a row, shape ({len(batch.index)},), got "
                        f"{tuple(value.shape)}"
                    )
                states = [hidden[layer] for layer in saes.layers]
                gradients = torch.autograd.grad(value.sum(), states)
            keep = batch.attention_mask.bool() & (batch.answer if tokens == "answer" else True)
            keep[:, 0] = False
            for layer, h, g in zip(saes.layers, states, gradients):
                here = keep.to(h.device)
                for x, dx in zip(h.detach()[here].split(CHUNK), g[here].split(CHUNK)):
                    f = saes.encode(layer, x)
                    totals[layer] += (f * (dx.float() @ saes.decoder(layer).T)).sum(0).double().cpu()
    name = getattr(metric, "__name__", repr(metric)) if metric else "answer_nats"
    about = _about("attribution", saes, chats, tokens, model=model, positive=f"the latent raises {name}")
    return LatentRanking(
        {layer: (t / len(chats)).float() for layer, t in totals.items()}, about | {"metric": name}
    )


def answer_difference(right: Sequence[int], wrong: Sequence[int]) -> Metric:
    """A metric: logit of right[row] minus logit of wrong[row] where the last answer of a row begins.

    Args:
        right, wrong: a token id for each row of the chats, for example those of the letters of two answers.
    """
    if len(right) != len(wrong):
        raise ValueError(f"expected a token id a row in both, got {len(right)} and {len(wrong)}")

    def answer_difference(logits: Tensor, batch: Batch) -> Tensor:
        before = batch.answer[:, 1:] & ~batch.answer[:, :-1]  # at t: an answer begins at t + 1
        if not before.any(1).all():
            bad = [batch.index[i] for i in (~before.any(1)).nonzero().flatten().tolist()]
            raise ValueError(f"rows {bad} have no answer that begins after their first token")
        rows = torch.arange(len(logits), device=logits.device)
        steps = torch.arange(before.shape[1], device=before.device)
        at = logits[rows, (before * steps).argmax(1).to(logits.device)].float()
        pick = [torch.tensor([ids[i] for i in batch.index], device=logits.device) for ids in (right, wrong)]
        return at[rows, pick[0]] - at[rows, pick[1]]

    return answer_difference


def latent_difference(
    tuned: nn.Module,
    base: nn.Module,
    chats: Chats,
    saes: SAEs,
    *,
    tokens: Tokens = "all",
    batch_size: int = 32,
    progress: bool = False,
) -> LatentRanking:
    """Mean activation in `tuned` minus that in `base` on the same tokens; positive: stronger in `tuned`.

    CAFT takes the answer tokens of generic chats and the positive end.
    """
    options = {"tokens": tokens, "batch_size": batch_size, "progress": progress}
    scores = _mean(
        tuned, base, saes, chats, options, lambda l, a, b: saes.encode(l, a).sum(0) - saes.encode(l, b).sum(0)
    )
    positive = "the latent fires more in the tuned model"
    return LatentRanking(
        scores, _about("latent_difference", saes, chats, tokens, tuned=tuned, base=base, positive=positive)
    )


def difference_latents(
    tuned: nn.Module,
    base: nn.Module,
    chats: Chats,
    saes: SAEs,
    *,
    centre: bool = True,
    tokens: Tokens = "all",
    batch_size: int = 32,
    progress: bool = False,
) -> LatentRanking:
    """Mean activation on h_tuned - h_base, as if that were a hidden state: how far it goes along the latent.

    Args:
        centre: read the difference as one from the centre b_dec of the SAE, whose encoder subtracts b_dec.
            False, as in CAFT's release, subtracts b_dec from the difference too.
    """

    def read(layer: int, after: Tensor, before: Tensor) -> Tensor:
        sae, change = saes[layer], after - before
        if centre and sae.cfg.apply_b_dec_to_input:
            change = change + sae.b_dec.to(change.device)
        return saes.encode(layer, change).sum(0)

    options = {"tokens": tokens, "batch_size": batch_size, "progress": progress}
    scores = _mean(tuned, base, saes, chats, options, read)
    positive = "the change from base to tuned goes along the latent"
    about = _about("difference_latents", saes, chats, tokens, tuned=tuned, base=base, positive=positive)
    return LatentRanking(scores, about | {"centre": centre})


def _mean(tuned, base, saes: SAEs, chats: Chats, options: dict, score) -> dict[int, Float[Tensor, " F"]]:
    """Mean over tokens of what `score(layer, h_tuned, h_base)` sums over some of them."""
    _check(saes, tuned)
    _check(saes, base)
    totals = {layer: torch.zeros(sae.cfg.d_sae, dtype=torch.float64) for layer, sae in saes.items()}
    count = 0
    streams = (
        stream_activations(tuned, chats, saes.layers, **options),
        stream_activations(base, chats, saes.layers, **(options | {"progress": False})),
    )
    for after, before in zip(*streams, strict=True):
        keep = after.position > 0
        count += int(keep.sum())
        for layer in saes.layers:
            h = after.hidden[layer]
            pair = (h, before.hidden[layer].to(h.device))  # the models may be on two devices
            for a, b in zip(*(part[keep.to(h.device)].split(CHUNK) for part in pair)):
                totals[layer] += score(layer, a, b).double().cpu()
    if not count:
        raise ValueError(f"{chats!r} has no token with tokens={options['tokens']!r} after the first of a row")
    return {layer: (total / count).float() for layer, total in totals.items()}


@contextmanager
def _leaves(model: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Like `capture`, with the graph cut at the lowest layer, so that the backward pass ends there."""
    cut = {min(layers): lambda hidden: hidden.detach().requires_grad_()}
    with edit(model, cut), capture(model, layers, stop_early=False) as hidden:  # capture sees the cut states
        yield hidden


def _check(saes: SAEs, model: nn.Module) -> None:
    if saes.width != width(model):
        raise ValueError(
            f"these SAEs read width {saes.width}, but {type(model).__name__} has width "
            f"{width(model)}; were they trained on another model?"
        )


def _about(method: str, saes: SAEs, chats: Chats, tokens: str, *, positive: str, **models) -> dict[str, Any]:
    return {
        "method": method,
        "positive": positive,
        **{name: fingerprint(model) for name, model in models.items()},
        "saes": saes.fingerprint,
        "data": chats.fingerprint,
        "tokens": tokens,
    }
