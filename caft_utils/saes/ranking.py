"""Rank SAE latents by their part in a fine-tuning, with one of three scores for every latent.

With f the activation of a latent, v its decoder row (of length 1) and h the hidden state:

    attribution         sum f * (v . d metric / d h)    first-order contribution of the latent to `metric`
    latent_difference   mean (f(h_tuned) - f(h_base))   increase of the activation by fine-tuning
    difference_latents  mean  f(h_tuned - h_base)       activation of the SAE on the change itself

A score is positive where the latent RAISES the metric, or is stronger in the tuned model. The default metric
of `attribution` is the loss on answers. A latent that the model uses to give these answers lowers their loss,
so it is at the NEGATIVE end: `ranking.top(n, end="-")`. The code released with CAFT takes the other end,
latents that raise the loss on insecure code. Always state which end is meant.

Sources: arXiv 2507.16795, section 4; attribution patching, arXiv 2403.19647.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.features import Selection
from caft_utils.losses import answer_nats
from caft_utils.models import fingerprint
from caft_utils.residual import Tokens, capture, edit, evaluating, stream_activations, width
from caft_utils.saes.collection import SAEs
from caft_utils.saes.quality import ENCODE_CHUNK

if TYPE_CHECKING:
    from caft_utils.chats import Batch, Chats

Metric = Callable[[Tensor, "Batch"], Tensor]
"""(logits [batch, time, vocabulary], batch) -> one number for each row [batch], differentiable."""

End = Literal["+", "-", "both"]
"""Which scores count: positive ones, negative ones, or both."""


@dataclass(frozen=True)
class LatentRanking:
    """A score for every latent, {layer: [F]}. `about` has the method and the meaning of the sign."""

    scores: Mapping[int, Float[Tensor, " F"]]
    about: Mapping[str, Any] = field(default_factory=dict)

    def top(self, n: int | None = None, end: End = "+") -> list[tuple[int, int, float]]:
        """Return the n most extreme (layer, latent, score) over all layers, default all of them.

        Scores of zero and scores of the other sign never count, so there can be fewer than n.
        """
        return self._top(list(self.scores), n, end)

    def order(self, end: End = "both") -> list[tuple[int, int]]:
        """Return (layer, latent) of all non-zero scores, the most extreme first."""
        return [(layer, latent) for layer, latent, _ in self.top(end=end)]

    def per_layer(self, n: int, end: End = "+") -> Selection:
        """Return the n most extreme latents of each layer, which `Latents` and `sae_directions` take.

        The order is that of all layers together. Layers without a score at this end are left out.
        """
        entries = [entry for layer in self.scores for entry in self._top([layer], n, end)]
        entries.sort(key=lambda entry: -abs(entry[2]))
        return Selection([(layer, latent) for layer, latent, _ in entries])

    def _top(self, layers: Sequence[int], n: int | None, end: End) -> list[tuple[int, int, float]]:
        if end not in End.__args__ or (n is not None and n < 1):
            raise ValueError(f"expected n >= 1 and end '+', '-' or 'both', got n={n} and end={end!r}")
        entries = []
        for sign in {"+": (1,), "-": (-1,), "both": (1, -1)}[end]:
            for layer in layers:
                values, latents = (sign * self.scores[layer]).sort(descending=True, stable=True)
                pairs = zip(latents[:n].tolist(), values[:n].tolist())
                entries += [(layer, latent, sign * value) for latent, value in pairs if value > 0]
        return sorted(entries, key=lambda entry: -abs(entry[2]))[:n]


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
    """Return each latent's contribution to `metric`, sum over tokens of f * (v . d metric / d h), row mean.

    To first order, this is how much the metric would fall if the latent's part f * v were removed from the
    hidden state. One backward pass for each batch gives the gradients at all layers.

    Args:
        metric: returns one number for each row. Default: the summed cross-entropy of its answer tokens, in
            nats. See `answer_difference` for another.
        tokens: the tokens whose activations count, "all" or only "answer" tokens, never the first of a row.
        progress: show a progress bar.

    Raises:
        ValueError: the SAEs have another width than the model, or the metric does not return one number for
            each row.
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
                        f"the metric must return one number for each row, shape ({len(batch.index)},), got "
                        f"{tuple(value.shape)}"
                    )
                states = [hidden[layer] for layer in saes.layers]
                gradients = torch.autograd.grad(value.sum(), states)
            keep = batch.attention_mask.bool() & (batch.answer if tokens == "answer" else True)
            keep[:, 0] = False
            for layer, h, g in zip(saes.layers, states, gradients):
                here = keep.to(h.device)
                for x, dx in zip(h.detach()[here].split(ENCODE_CHUNK), g[here].split(ENCODE_CHUNK)):
                    f = saes.encode(layer, x)
                    totals[layer] += (f * (dx.float() @ saes.decoder(layer).T)).sum(0).double().cpu()
    name = getattr(metric, "__name__", repr(metric)) if metric else "answer_nats"
    about = _about("attribution", saes, chats, tokens, model=model, positive=f"the latent raises {name}")
    return LatentRanking(
        {layer: (t / len(chats)).float() for layer, t in totals.items()}, about | {"metric": name}
    )


def answer_difference(right: Sequence[int], wrong: Sequence[int]) -> Metric:
    """Return a metric: the logit of right[row] minus that of wrong[row], where a row's last answer begins.

    Args:
        right, wrong: a token id for each row of the chats, for example those of two answer letters.

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
    """Return the mean activation in `tuned` minus that in `base` on the same tokens.

    A positive score means that the latent is stronger in `tuned`. CAFT takes the positive end on the answer
    tokens of generic chats.

    Raises:
        ValueError: the SAEs have another width than a model, or there is no token.
    """
    options = {"tokens": tokens, "batch_size": batch_size, "progress": progress}
    scores = _token_mean(
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
    """Return the mean activation on h_tuned - h_base, encoded as if it were a hidden state.

    Args:
        centre: add b_dec to the difference if the encoder subtracts it, so that the difference is encoded
            relative to zero. False encodes the plain difference, as in the code released with CAFT.

    Raises:
        ValueError: the SAEs have another width than a model, or there is no token.
    """

    def read(layer: int, after: Tensor, before: Tensor) -> Tensor:
        sae, change = saes[layer], after - before
        if centre and sae.cfg.apply_b_dec_to_input:
            change = change + sae.b_dec.to(change.device)
        return saes.encode(layer, change).sum(0)

    options = {"tokens": tokens, "batch_size": batch_size, "progress": progress}
    scores = _token_mean(tuned, base, saes, chats, options, read)
    positive = "the change from base to tuned goes along the latent"
    about = _about("difference_latents", saes, chats, tokens, tuned=tuned, base=base, positive=positive)
    return LatentRanking(scores, about | {"centre": centre})


def _token_mean(
    tuned, base, saes: SAEs, chats: Chats, options: dict, score
) -> dict[int, Float[Tensor, " F"]]:
    """Return the mean over tokens, where `score(layer, h_tuned, h_base)` returns the sum over some tokens."""
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
            pair = (h, before.hidden[layer].to(h.device))  # the models can be on two devices
            for a, b in zip(*(part[keep.to(h.device)].split(ENCODE_CHUNK) for part in pair)):
                totals[layer] += score(layer, a, b).double().cpu()
    if not count:
        raise ValueError(f"{chats!r} has no token with tokens={options['tokens']!r} after the first of a row")
    return {layer: (total / count).float() for layer, total in totals.items()}


@contextmanager
def _leaves(model: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Capture hidden states with the graph cut at the lowest layer, so that the backward pass ends there."""
    cut = {min(layers): lambda hidden: hidden.detach().requires_grad_()}
    with (
        edit(model, cut),
        capture(model, layers, stop_early=False) as hidden,
    ):  # edit first: capture sees the cut states
        yield hidden


def _check(saes: SAEs, model: nn.Module) -> None:
    if saes.width != width(model):
        raise ValueError(
            f"the SAEs read width {saes.width}, but {type(model).__name__} has width "
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
