"""The five kinds of sparse autoencoder, and how one is trained.

The loss is ||h - h'||^2 and, by architecture:

    batchtopk    k latents per token on average over a batch; one threshold after training (arXiv 2412.06410)
    topk         exactly k latents on every token (arXiv 2406.04093)
    matryoshka   batchtopk whose first 1/8, 1/4 and 1/2 of the latents must do alone, too (arXiv 2503.17547)
    jumprelu     a threshold for each latent, learned, with k as the target of the mean (arXiv 2407.14435)
    standard     ReLU with an L1 penalty of weight `sparsity`, which decides how many fire
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from sae_lens import TrainingSAE

Architecture = Literal["batchtopk", "topk", "matryoshka", "jumprelu", "standard"]


@dataclass(frozen=True)
class SAETrainingConfig:
    """How to train. The defaults fit the classroom models (d = 128) in about a minute.

    width: number F of latents. k: latents that fire on a token, on average.
    sparsity: weight of the penalty of "standard" (L1) and of "jumprelu" (its distance from k).
    lr: Adam's, after `warmup` steps and until the last fifth of the `steps`, in which it falls to zero.
    batch_tokens: tokens a step. buffer_tokens: how many are mixed (each costs d floats a layer).
    silence: steps without firing after which a latent counts as dead and is pulled back.
    """

    architecture: Architecture = "batchtopk"
    width: int = 1024
    k: int = 24
    sparsity: float = 1.0
    lr: float = 3e-3
    steps: int = 600
    batch_tokens: int = 512
    buffer_tokens: int = 32768
    warmup: int = 20
    silence: int = 100

    def __post_init__(self):
        if self.architecture not in Architecture.__args__:
            raise ValueError(
                f"unknown architecture {self.architecture!r}; expected one of "
                f"{', '.join(Architecture.__args__)}"
            )
        if not 1 <= self.k <= self.width:
            raise ValueError(f"k must be 1 to {self.width}, the number of latents, got {self.k}")
        if self.architecture == "matryoshka" and self.width < 8:
            raise ValueError(f"matryoshka needs at least 8 latents, got width={self.width}")
        if self.steps < 1 or not 1 <= self.batch_tokens <= self.buffer_tokens:
            raise ValueError(
                f"expected steps >= 1 and batch_tokens from 1 to buffer_tokens, got {self.steps}, "
                f"{self.batch_tokens} and {self.buffer_tokens}"
            )


def fresh(recipe: SAETrainingConfig, d: int, device: str) -> TrainingSAE:
    """A training SAE of sae-lens with random weights."""
    import sae_lens

    # Encoder columns start as the decoder rows: with rows of length 1 pre-activations are of the size of the
    # hidden states from the first step on, and no latent has to grow before it can win.
    options: dict = {"decoder_init_norm": 1.0}
    match recipe.architecture:
        case "topk":
            kind, options = "TopK", options | {"k": recipe.k}
        case "batchtopk" | "matryoshka":
            # The threshold is a running mean from zero; at its default of 0.01 a short run never gets there.
            kind, options = "BatchTopK", options | {"k": recipe.k, "topk_threshold_lr": 0.05}
            if recipe.architecture == "matryoshka":
                kind = "MatryoshkaBatchTopK"
                options["matryoshka_widths"] = [recipe.width // n for n in (8, 4, 2, 1)]
        case "jumprelu":
            # Pre-activations are about standard normal at first: with this threshold k of them fire. The
            # penalty reaches the encoder too; the threshold alone moves too slowly for a short run.
            normal = torch.distributions.Normal(0.0, 1.0)
            start = normal.icdf(torch.tensor(1 - recipe.k / recipe.width)).clamp(min=0.01).item()
            kind, options = (
                "JumpReLU",
                options
                | {
                    "jumprelu_init_threshold": start,
                    "jumprelu_bandwidth": 0.5,
                    "jumprelu_ste_to_input": True,
                    "jumprelu_sparsity_loss_mode": "quadratic",
                    "target_l0": recipe.k,
                    "l0_coefficient": recipe.sparsity,
                },
            )
        case "standard":
            kind = "Standard"
            options = {"l1_coefficient": recipe.sparsity, "l1_warm_up_steps": recipe.steps // 10}
    config = getattr(sae_lens, f"{kind}TrainingSAEConfig")(
        d_in=d, d_sae=recipe.width, device=device, normalize_activations="expected_average_only_in", **options
    )
    return getattr(sae_lens, f"{kind}TrainingSAE")(config)
