"""Generate text under steering, at the strength that reaches a given effect.

Stronger steering changes more text, so directions are compared at equal effect. The strength is the factor on
a unit vector at which KL(plain || steered) of next-token distributions, averaged over the plain
continuations, reaches a target in nats. (arXiv 2410.13928, section 3.3.)
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

from caft_utils.arguments import checked
from caft_utils.chats import prompt_ids
from caft_utils.chats.rows import TEXT
from caft_utils.evaluation.generation import generate_ids, generation_config, up_to_end
from caft_utils.interpret.score.padded_batches import left_padded_batches
from caft_utils.interventions import Steer
from caft_utils.models.positions import check_positions
from caft_utils.residual import capture, evaluating, seeded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Prompt = str | Sequence[Mapping[str, str]]
KL_TOLERANCE = 0.1  # relative
# Largest strength, in mean norms of the hidden states. Beyond it, the steering vector dominates.
MAX_STRENGTH = 64


@dataclass(frozen=True)
class SteeredTexts:
    """Continuations under `strength` times a unit vector, which changes next tokens by `kl` nats."""

    texts: list[str]
    strength: float
    kl: float


class SteeredGenerator:
    """Continuations of some prompts by one model, plain and steered. Each is generated once and cached.

    Args:
        prompts: texts to continue, or conversations to answer.
        target_kl: nats per token by which steering changes the next-token distributions.
        temperature: 0 takes the most likely tokens; otherwise they are sampled with `seed`.

    Attributes:
        plain_texts: the continuations without steering, in the order of `prompts`.

    Raises:
        ValueError: no prompt, or a target that is not above 0.
    """

    @checked
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
            raise ValueError(
                f"expected prompts and target_kl > 0, got {len(prompts)} prompts and target_kl={target_kl}"
            )
        self.model, self.tokenizer, self.target_kl = model, tokenizer, target_kl
        self.seed, self.batch_size = seed, batch_size
        self._config = generation_config(
            model, tokenizer, temperature=temperature, max_new_tokens=max_new_tokens
        )
        self._prompts = [
            prompt_ids(tokenizer, [{"role": TEXT, "content": prompt}] if isinstance(prompt, str) else prompt)
            for prompt in prompts
        ]
        lengths = [len(prompt) + max_new_tokens for prompt in self._prompts]
        check_positions(model, lengths, f"prompts (with {max_new_tokens} new tokens)", "shorten the prompt")
        with evaluating(model):
            continuations = self._continuations()
            self.plain_texts = self._decode(continuations)
            self._rows = [prompt + ids for prompt, ids in zip(self._prompts, continuations)]
            self._counts = [len(ids) + 1 for ids in continuations]  # with the prediction after the last token
            self._plain_logprobs = self._next_token_logprobs()
        self._generated: dict[tuple, SteeredTexts] = {}
        self._last_strength: dict[int, float] = {}
        self._mean_norms: dict[int, float] = {}

    def generate(self, layer: int, vector: Float[Tensor, " d"]) -> SteeredTexts:
        """Return continuations under steering along `vector`, whose norm does not matter, at the target KL.

        If no strength reaches the target, the last one tried is used, and `kl` differs from the target.

        Raises:
            ValueError: the vector is zero or not finite.
        """
        vector = torch.as_tensor(vector).detach().float().cpu()
        if not vector.isfinite().all() or not vector.norm() > 0:
            raise ValueError(
                f"cannot steer along a vector of norm {float(vector.norm())}; expected a finite norm above 0"
            )
        key = (layer, sha256(vector.numpy().tobytes()).digest())
        if key not in self._generated:
            with evaluating(self.model):
                steer, mean_norm = Steer({layer: vector / vector.norm()}), self._mean_norm(layer)
                with steer.on(self.model):
                    strength, kl = self._solve(steer, mean_norm)
                    texts = self._decode(self._continuations())
            self._generated[key] = SteeredTexts(texts, strength, kl)
        return self._generated[key]

    def _solve(self, steer: Steer, mean_norm: float) -> tuple[float, float]:
        """Return strength and KL, by bracketing and then linear interpolation of log KL in log strength.

        `steer` is left at that strength.
        """
        low: tuple[float, float] | None = None  # log strength, and log(KL / target)
        high: tuple[float, float] | None = None
        at = log(self._last_strength.get(steer.layers[0], 0.5 * mean_norm))
        while True:
            steer.strength = exp(at)
            kl = self._mean_kl()
            if abs(kl - self.target_kl) <= KL_TOLERANCE * self.target_kl:
                # The next search starts here, because directions of one layer need similar strengths.
                self._last_strength[steer.layers[0]] = steer.strength
                return steer.strength, kl
            # A KL that is not finite comes from an overflow, so the strength is far too large.
            excess = log(max(kl, 1e-9) / self.target_kl) if isfinite(kl) else log(1e3)
            low, high = (low, (at, excess)) if excess > 0 else ((at, excess), high)
            if low and high:
                share = min(max(low[1] / (low[1] - high[1]), 0.1), 0.9)
                at = low[0] + share * (high[0] - low[0])
                if high[0] - low[0] < 1e-4:  # the KL jumps here
                    return steer.strength, kl
            else:
                at += log(2) if low else -log(2)
                if not 1e-4 * mean_norm < exp(at) < MAX_STRENGTH * mean_norm:
                    return steer.strength, kl

    def _mean_norm(self, layer: int) -> float:
        """Return the mean norm of the plain hidden states at `layer`."""
        if layer not in self._mean_norms:
            norms = []
            for _, batch in self._batches(self._rows):
                with torch.no_grad(), capture(self.model, [layer]) as hidden:
                    self.model(**batch, use_cache=False)
                norms.append(hidden[layer][batch["attention_mask"].bool()].float().norm(dim=-1))
            self._mean_norms[layer] = float(torch.cat(norms).mean())
        return self._mean_norms[layer]

    def _mean_kl(self) -> float:
        """Return KL(plain || now) in nats, averaged over all predicted tokens."""
        total = 0.0
        for plain, now in zip(self._plain_logprobs, self._next_token_logprobs()):
            total += float((plain.exp() * (plain - now)).sum())
        return total / sum(self._counts)

    def _next_token_logprobs(self) -> list[Float[Tensor, "n vocabulary"]]:
        """Return next-token log-probabilities after each prompt and each token of its plain continuation."""
        parts = []
        for indices, batch in self._batches(self._rows):
            counts = [self._counts[i] for i in indices]
            with torch.no_grad():
                logits = self.model(**batch, logits_to_keep=max(counts), use_cache=False).logits
            parts.append(torch.cat([row[-n:] for row, n in zip(logits, counts)]).float().log_softmax(-1))
        return parts

    def _continuations(self) -> list[list[int]]:
        """Return the new tokens of each prompt, up to the first that ends a text."""
        ends = self._config.eos_token_id
        continuations: list[list[int]] = [[] for _ in self._prompts]
        with seeded(self.seed, self.model.device), torch.no_grad():
            for indices, batch in self._batches(self._prompts):
                del batch["position_ids"]  # `generate` computes them itself
                names = [f"prompt {i}" for i in indices]
                output = generate_ids(self.model, self._config, names, **batch)
                for i, ids in zip(indices, output[:, batch["input_ids"].shape[1] :].tolist()):
                    continuations[i] = up_to_end(ids, ends)
        return continuations

    def _batches(self, rows: Sequence[Sequence[int]]):
        return left_padded_batches(rows, self.tokenizer, self.batch_size, self.model.device)

    def _decode(self, rows: list[list[int]]) -> list[str]:
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)
