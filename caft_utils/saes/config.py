"""How sparse autoencoders are trained: five architectures and their hyper-parameters.

The loss is the reconstruction error ||h - h'||^2. Sparsity depends on the architecture:

    batchtopk    k latents per token on average over a batch, one threshold after training (arXiv 2412.06410)
    topk         exactly k latents on every token (arXiv 2406.04093)
    matryoshka   batchtopk, and the first 1/8, 1/4 and 1/2 of the latents alone also reconstruct h
                 (arXiv 2503.17547)
    jumprelu     a learned threshold for each latent, k as the target of the mean number (arXiv 2407.14435)
    standard     ReLU with an L1 penalty, whose weight `sparsity` determines how many latents are active
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from caft_utils.arguments import number, whole

if TYPE_CHECKING:
    from sae_lens import TrainingSAE

Architecture = Literal["batchtopk", "topk", "matryoshka", "jumprelu", "standard"]


@dataclass(frozen=True)
class SAETrainingConfig:
    """Hyper-parameters. The defaults suit the classroom models (d = 128) and take about a minute.

    The fields enter the key under which trained SAEs are stored, so renaming one invalidates stored SAEs.

    Args:
        width: number F of latents.
        k: number of latents that are active on a token, on average.
        sparsity: weight of the penalty of "standard" (L1) and of "jumprelu" (squared distance from k).
        lr: learning rate of Adam after `warmup` steps. It decays to zero in the last fifth of the steps.
        steps: number of optimiser steps.
        batch_tokens: tokens of one step.
        buffer_tokens: tokens in the shuffle buffer. Each takes d floats for each layer.
        warmup: steps over which the learning rate rises from zero.
        silence: number of steps without an activation after which a latent counts as dead and is revived.
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
        for name in ("width", "k", "steps", "batch_tokens", "buffer_tokens", "warmup", "silence"):
            low = 0 if name in ("warmup", "silence") else None  # the other ranges depend on each other
            object.__setattr__(self, name, whole(name, getattr(self, name), low))
        object.__setattr__(self, "sparsity", number("sparsity", self.sparsity, 0))
        object.__setattr__(self, "lr", number("lr", self.lr, above=0))
        if not 1 <= self.k <= self.width:
            raise ValueError(f"k must be 1 to {self.width}, the number of latents, got {self.k}")
        if self.architecture == "matryoshka" and self.width < 8:
            raise ValueError(f"matryoshka needs at least 8 latents, got width={self.width}")
        if self.steps < 1 or not 1 <= self.batch_tokens <= self.buffer_tokens:
            raise ValueError(
                f"expected steps >= 1 and batch_tokens from 1 to buffer_tokens, got {self.steps}, "
                f"{self.batch_tokens} and {self.buffer_tokens}"
            )


def new_training_sae(config: SAETrainingConfig, d: int, device: str) -> TrainingSAE:
    """Return a training SAE of sae-lens with random weights, for hidden states of width d."""
    import sae_lens

    # Encoder columns start as copies of the decoder rows. With rows of length 1, pre-activations have the
    # scale of the hidden states from the first step, and no latent has to grow before it can be active.
    options: dict = {"decoder_init_norm": 1.0}
    match config.architecture:
        case "topk":
            kind, options = "TopK", options | {"k": config.k}
        case "batchtopk" | "matryoshka":
            # The threshold is a running mean that starts at zero. At the default rate of 0.01 it does not
            # converge within a short run.
            kind, options = "BatchTopK", options | {"k": config.k, "topk_threshold_lr": 0.05}
            if config.architecture == "matryoshka":
                kind = "MatryoshkaBatchTopK"
                options["matryoshka_widths"] = [config.width // n for n in (8, 4, 2, 1)]
        case "jumprelu":
            # Pre-activations are about standard normal at first, so k latents exceed this initial threshold.
            # The penalty also reaches the encoder, because the threshold alone moves too slowly.
            normal = torch.distributions.Normal(0.0, 1.0)
            start = normal.icdf(torch.tensor(1 - config.k / config.width)).clamp(min=0.01).item()
            kind = "JumpReLU"
            options |= {
                "jumprelu_init_threshold": start,
                "jumprelu_bandwidth": 0.5,
                "jumprelu_ste_to_input": True,
                "jumprelu_sparsity_loss_mode": "quadratic",
                "target_l0": config.k,
                "l0_coefficient": config.sparsity,
            }
        case "standard":
            kind = "Standard"
            options = {"l1_coefficient": config.sparsity, "l1_warm_up_steps": config.steps // 10}
    sae_config = getattr(sae_lens, f"{kind}TrainingSAEConfig")(
        d_in=d, d_sae=config.width, device=device, normalize_activations="expected_average_only_in", **options
    )
    return getattr(sae_lens, f"{kind}TrainingSAE")(sae_config)
