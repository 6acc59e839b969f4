"""Intervention: does steering along a direction make the model write what the explanation says?

Scores on text that is read say nothing about what a direction does to the text that is written, and for
ablation that is what matters. Prompts are continued by the plain model and by the model with strength * v
added to its residual stream; the score is how much more probable a judge finds the explanation in the
second texts,

    mean over prompts of  logit p(z | steered) - logit p(z | plain)      (nats; 0: no effect that z tells of)

A stronger push changes more, so directions are compared at one strength of effect: the strength is solved for
a given KL(plain || steered) of next-token distributions, in nats, averaged over the plain continuations.
(arXiv 2410.13928, section 3.3.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import exp, isfinite, log
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from caft_utils.chats import prompt_ids
from caft_utils.evaluation.scores import Score, averaged
from caft_utils.interpret.examples.max_activating import TextWindow
from caft_utils.interpret.score.window_judges import WindowJudge, left_padded
from caft_utils.interventions import Steer
from caft_utils.residual import capture

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from caft_utils.interpret.examples import FeatureExamples

Prompt = str | Sequence[Mapping[str, str]]
TOLERANCE = 0.1  # relative, in the KL
REACH = 64  # largest strength, in mean lengths of the hidden states: beyond it nothing but the vector is left
CLIP = 0.02  # probabilities nearer to 0 or 1 than this count as this: a logit must not be infinite


@dataclass(frozen=True)
class SteeredTexts:
    """Continuations written under `strength` times a unit vector, which changes next tokens by `kl` nats."""

    texts: list[str]
    strength: float
    kl: float


class Steering:
    """Continuations of some prompts by one model, plain and steered, each written once and kept.

    Args:
        prompts: texts to go on with as they are, or conversations to be answered.
        target_kl: nats per token by which steering is to change the next-token distributions.
        temperature: 0 writes the most likely tokens; else sampled, with `seed`.

    Raises:
        ValueError: no prompt, or a target that is not above 0.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Prompt],
        *,
        target_kl: float = 1.0,
        max_new_tokens: int = 16,
        temperature: float = 1.0,
        seed: int = 0,
        batch_size: int = 32,
    ):
        if not len(prompts) or not target_kl > 0:
            raise ValueError(f"expected prompts and target_kl > 0, got {len(prompts)} and {target_kl}")
        self.model, self.tokenizer, self.target_kl = model, tokenizer, target_kl
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        self.seed, self.batch_size = seed, batch_size
        self._prompts = [
            tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt_ids(tokenizer, prompt)
            for prompt in prompts
        ]
        written = self._continue()
        self.plain = self._decoded(written)
        self._rows = [prompt + ids for prompt, ids in zip(self._prompts, written)]
        self._counts = [len(ids) + 1 for ids in written]  # what follows the last token is predicted too
        self._reference = self._next_tokens()
        self._kept: dict[tuple, SteeredTexts] = {}
        self._guess: dict[int, float] = {}
        self._scales: dict[int, float] = {}

    def along(self, layer: int, vector: Float[Tensor, " d"]) -> SteeredTexts:
        """Continuations under steering along `vector` (its length does not matter) at the target KL.

        Where no strength reaches the target, the largest one tried is used, and `kl` tells.
        """
        vector = torch.as_tensor(vector).detach().float().cpu()
        if not vector.isfinite().all() or not vector.norm() > 0:
            raise ValueError(f"cannot steer along a vector of length {float(vector.norm())}")
        key = (layer, sha256(vector.numpy().tobytes()).digest())
        if key not in self._kept:
            steer, scale = Steer({layer: vector / vector.norm()}), self._scale(layer)
            with steer.on(self.model):
                strength, kl = self._solved(steer, scale)
                self._kept[key] = SteeredTexts(self._decoded(self._continue()), strength, kl)
        return self._kept[key]

    def _solved(self, steer: Steer, scale: float) -> tuple[float, float]:
        """Strength and KL: bracketed, then narrowed down on the line of log KL over log strength."""
        low: tuple[float, float] | None = None  # log strength, and log KL / target
        high: tuple[float, float] | None = None
        at = log(self._guess.get(steer.layers[0], 0.5 * scale))
        while True:
            steer.strength = exp(at)
            kl = self._divergence()
            if abs(kl - self.target_kl) <= TOLERANCE * self.target_kl:
                self._guess[steer.layers[0]] = steer.strength  # directions of one layer need like strengths
                return steer.strength, kl
            # A KL that is not a number comes of an overflow: far too strong.
            excess = log(max(kl, 1e-9) / self.target_kl) if isfinite(kl) else log(1e3)
            low, high = (low, (at, excess)) if excess > 0 else ((at, excess), high)
            if low and high:
                share = min(max(low[1] / (low[1] - high[1]), 0.1), 0.9)
                at = low[0] + share * (high[0] - low[0])
                if high[0] - low[0] < 1e-4:  # the KL jumps here
                    return steer.strength, kl
            else:
                at += log(2) if low else -log(2)
                if not 1e-4 * scale < exp(at) < REACH * scale:
                    return steer.strength, kl

    def _scale(self, layer: int) -> float:
        """Mean length of the hidden states at `layer`."""
        if layer not in self._scales:
            lengths = []
            for _, batch in left_padded(self._rows, self.tokenizer, self.batch_size, self.model.device):
                with torch.no_grad(), capture(self.model, [layer]) as hidden:
                    self.model(**batch, use_cache=False)
                lengths.append(hidden[layer][batch["attention_mask"].bool()].float().norm(dim=-1))
            self._scales[layer] = float(torch.cat(lengths).mean())
        return self._scales[layer]

    def _divergence(self) -> float:
        total = 0.0
        for reference, logp in zip(self._reference, self._next_tokens()):
            total += float((reference.exp() * (reference - logp)).sum())
        return total / sum(self._counts)

    def _next_tokens(self) -> list[Float[Tensor, "n vocabulary"]]:
        """Log-probabilities of what follows each prompt and each token that it was continued with."""
        parts = []
        for places, batch in left_padded(self._rows, self.tokenizer, self.batch_size, self.model.device):
            counts = [self._counts[place] for place in places]
            with torch.no_grad():
                logits = self.model(**batch, logits_to_keep=max(counts), use_cache=False).logits
            parts.append(torch.cat([row[-n:] for row, n in zip(logits, counts)]).float().log_softmax(-1))
        return parts

    def _continue(self) -> list[list[int]]:
        """New tokens of each prompt, up to the first that ends a text."""
        from transformers import GenerationConfig

        pad = next(i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0) if i is not None)
        known = self.model.generation_config.eos_token_id
        ends = {self.tokenizer.eos_token_id, *(known if isinstance(known, list) else [known])} - {None}
        # All that a checkpoint's own settings could change is given here.
        settings = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=self.temperature > 0,
            num_beams=1,
            repetition_penalty=1.0,
            pad_token_id=pad,
            eos_token_id=sorted(ends) or None,
            **({"temperature": self.temperature, "top_k": 0, "top_p": 1.0} if self.temperature > 0 else {}),
        )
        found: list[list[int]] = [[] for _ in self._prompts]
        device = self.model.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(self.seed)
            for places, batch in left_padded(self._prompts, self.tokenizer, self.batch_size, device):
                del batch["position_ids"]  # generate counts them itself
                out = self.model.generate(**batch, generation_config=settings)
                for place, ids in zip(places, out[:, batch["input_ids"].shape[1] :].tolist()):
                    stop = next((i for i, token in enumerate(ids) if token in ends), len(ids))
                    found[place] = ids[:stop]
        return found

    def _decoded(self, rows: list[list[int]]) -> list[str]:
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)


def intervention(
    explanation: str,
    evidence: FeatureExamples,
    judge: WindowJudge,
    steering: Steering,
    vector: Float[Tensor, " d"],
) -> Score:
    """Mean gain of the explanation's log-odds, in nats, when the model is steered along `vector`.

    Args:
        vector: as `readable.vector(layer, index)` gives it; for the side "-" of a component it is turned
            here.

    `extra` tells the strength and the KL that was reached.
    """
    found = steering.along(evidence.layer, -vector if evidence.side == "-" else vector)
    texts = steering.plain + found.texts
    odds = [_logit(p) for p in judge(explanation, [_window(text) for text in texts])]
    plain, steered = odds[: len(steering.plain)], odds[len(steering.plain) :]
    gains = [None if a is None or b is None else b - a for a, b in zip(plain, steered)]
    return averaged("intervention", gains, strength=found.strength, kl=found.kl)


def _logit(p: float | None) -> float | None:
    if p is None or not isfinite(p):
        return None
    p = min(max(p, CLIP), 1 - CLIP)
    return log(p / (1 - p))


def _window(text: str) -> TextWindow:
    """A text as a window for judges, in which no token has a value."""
    return TextWindow([text], [0.0], 0, -1, 0)
