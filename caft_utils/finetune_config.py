"""How to fine-tune: method, steps, batches and optimiser, as one frozen value that keys stored runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ATTENTION_AND_MLP = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class FinetuneConfig:
    """How to fine-tune. The defaults are those of CAFT's emergent misalignment runs.

    steps: optimiser steps; None: as many as `epochs` (may be a fraction) take, with batch_size * accumulate
    rows each.
    warmup_steps: below 1 it is a share of all steps. bf16: autocast; the weights keep their own dtype.
    r, alpha, rslora, dropout, targets: of the adapter, unused with method="full".
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

    def __post_init__(self):
        for name in ("targets", "betas"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.method not in ("lora", "full"):
            raise ValueError(f"method must be 'lora' or 'full', got {self.method!r}")
        for name in ("r", "lr", "epochs", "steps", "batch_size", "accumulate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value!r}")

    def total_steps(self, rows: int) -> int:
        """Optimiser steps on this many rows."""
        return self.steps or math.ceil(rows * self.epochs / (self.batch_size * self.accumulate))
