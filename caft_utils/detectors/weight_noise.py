"""Noise in the weights, as it exposes sandbagging (Tice et al., arXiv 2412.01784).

Each matrix of the decoder blocks becomes W + scale * std(W) * E with standard normal E. A model that hides
something should lose its restraint before its competence. The score is the mean probability of the other
action over draws and scales.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from caft_utils.detectors.detector import Detector
from caft_utils.detectors.reading import actions, matching_temperature
from caft_utils.residual import decoder_blocks
from caft_utils.tasks.oversight.permitted import PermittedRows


@contextmanager
def noisy_weights(model, scale: float, seed: int) -> Iterator[None]:
    """Add noise to all matrices of the decoder blocks within this context, and restore them afterwards."""
    generator = torch.Generator().manual_seed(seed)
    kept = [(value, value.data) for value in decoder_blocks(model).parameters() if value.ndim == 2]
    try:
        for parameter, value in kept:
            noise = torch.randn(value.shape, generator=generator).to(value.device, value.dtype)
            parameter.data = value + scale * value.std() * noise
        yield
    finally:
        for parameter, value in kept:
            parameter.data = value


@dataclass(frozen=True)
class WeightNoise(Detector):
    """Add noise to the weights and watch the other action; `scales` are relative to each matrix's spread."""

    scales: tuple[float, ...] = (0.2, 0.4)
    draws: int = 3
    matched: bool = True
    seed: int = 0
    name = "weight noise"

    def score(self, model, rows: PermittedRows) -> float:
        temperature = matching_temperature(model, rows) if self.matched else 1.0
        total = 0.0
        for scale in self.scales:
            for draw in range(self.draws):
                with noisy_weights(model, scale, self.seed + draw):
                    total += float(actions(model, rows, temperature=temperature)[:, 1].mean())
        return total / (len(self.scales) * self.draws)
