"""The settings of a fine-tuning run: method, length, batches and optimiser, as one frozen value."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from caft_utils.arguments import flag, number, numbers, text, texts, whole, wholes

ATTENTION_AND_MLP = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALL_LINEAR = ("all-linear",)
OPTIMIZERS = ("adamw", "adamw_8bit")

# Fields added after the first runs were stored. They enter the key of a stored run only when they are set, so
# the keys of earlier runs stay valid.
ADDED_LATER = {"optimizer": "adamw", "blocks": None}
RANGES: dict[str, dict[str, float]] = {
    "alpha": {"above": 0},
    "dropout": {"low": 0, "below": 1},
    "lr": {"above": 0},
    "epochs": {"above": 0},
    "warmup_steps": {"low": 0},
    "weight_decay": {"low": 0},
    "max_grad_norm": {"low": 0},
}


@dataclass(frozen=True)
class FinetuneConfig:
    """The settings of one fine-tuning run. The defaults are those of CAFT's emergent misalignment experiment.

    The text "1e-4" is taken as a number, because YAML reads it as text; other numbers in quotes are refused.

    Attributes:
        method: "lora" trains an adapter on frozen weights, "full" trains the weights themselves.
        r, alpha, rslora, dropout, targets: LoRA rank, scaling, rank-stabilised scaling, dropout, and names of
            the adapted modules, or "all-linear" for all matrices of the decoder blocks. The default names
            must reach all of them too. Unused with method="full".
        blocks: 0-based decoder blocks to train; None trains all. With method="full" everything else is
            frozen, the embeddings too.
        optimizer: "adamw", "adamw_8bit" (as in the paper; needs a CUDA GPU and bitsandbytes), or another
            optimiser name of transformers.
        lr, schedule, weight_decay, betas, max_grad_norm: the learning rate with its schedule, and AdamW's
            settings.
        warmup_steps: optimiser steps; a value below 1 is a share of all steps.
        steps: optimiser steps. None: as many as `epochs` take.
        epochs: passes over the rows, possibly a fraction.
        batch_size, accumulate: rows per forward pass, and forward passes per optimiser step.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        bf16: autocast to bfloat16; the weights keep their own dtype.

    Raises:
        ValueError: a value is out of range, or an unknown method or optimiser.
    """

    method: Literal["lora", "full"] = "lora"
    r: int = 32
    alpha: float = 64
    rslora: bool = True
    dropout: float = 0.0
    targets: tuple[str, ...] = ATTENTION_AND_MLP
    lr: float = 1e-5
    epochs: float = 1
    steps: int | None = None
    batch_size: int = 2
    accumulate: int = 8
    warmup_steps: float = 5
    schedule: str = "linear"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    gradient_checkpointing: bool = False
    bf16: bool = False
    optimizer: str = ADDED_LATER["optimizer"]
    blocks: tuple[int, ...] | None = ADDED_LATER["blocks"]

    def __post_init__(self):
        if isinstance(self.targets, str):
            object.__setattr__(self, "targets", (self.targets,))
        if self.method not in ("lora", "full"):
            raise ValueError(f"method must be 'lora' or 'full', got {self.method!r}")
        checked: dict[str, Any] = {name: number(name, getattr(self, name), **RANGES[name]) for name in RANGES}
        for name in ("r", "batch_size", "accumulate", "steps"):
            if name != "steps" or self.steps is not None:
                checked[name] = whole(name, number(name, getattr(self, name), above=0))
        for name in ("rslora", "gradient_checkpointing", "bf16"):
            checked[name] = flag(name, getattr(self, name))
        checked["betas"] = tuple(numbers("betas", self.betas, 0, below=1))
        if len(checked["betas"]) != 2:
            raise ValueError(f"betas must be two numbers, got {self.betas!r}")
        checked["targets"] = tuple(texts("targets", self.targets))
        if self.blocks is not None:
            named = "blocks must name at least one decoder block, counted from 0 (None trains all)"
            # sorted, so that one set of blocks has one key
            checked["blocks"] = tuple(sorted(set(wholes(f"{named}: blocks", self.blocks, 0))))
            if not checked["blocks"]:
                raise ValueError(f"{named}, got {self.blocks!r}")
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        text("schedule", self.schedule)
        text("optimizer", self.optimizer)
        if self.optimizer not in OPTIMIZERS:
            # Importing transformers takes seconds, so its list of names is read for unusual names only.
            from transformers.training_args import OptimizerNames

            names = sorted({*OPTIMIZERS, *(member.value for member in OptimizerNames)})
            if self.optimizer not in names:
                raise ValueError(f"unknown optimizer {self.optimizer!r}; expected one of {', '.join(names)}")

    def key(self) -> dict[str, Any]:
        """Return the settings as they enter the key of a stored run."""
        settings = asdict(self)
        return {
            name: value
            for name, value in settings.items()
            if name not in ADDED_LATER or value != ADDED_LATER[name]
        }

    def total_steps(self, rows: int) -> int:
        """Return the number of optimiser steps on this many rows."""
        return self.steps or math.ceil(rows * self.epochs / (self.batch_size * self.accumulate))
