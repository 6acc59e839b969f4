"""Gender bias on a real model: how it is fine-tuned, and where the change is read."""

from __future__ import annotations

from typing import Any

from caft_utils import FinetuneConfig

MODEL = "smollm2"
LAYERS = tuple(range(10, 29))  # blocks whose outputs are read
COMPONENTS = 3  # number of components read at each block
REFERENCES = (100, 101)  # seeds of the fine-tunings whose change PCA decomposes
READ_ROWS = 200  # training rows on which directions are found
LORA: dict[str, Any] = {"r": 16, "alpha": 16, "rslora": False, "lr": 1e-3, "steps": 72, "warmup_steps": 8}
SHARED: dict[str, Any] = {"batch_size": 16, "accumulate": 1, "weight_decay": 0.0, "schedule": "linear"}
RECIPES = {
    "adapters on all blocks": FinetuneConfig(**LORA, **SHARED),
    "adapters on blocks 10-29": FinetuneConfig(**LORA, **SHARED, blocks=tuple(range(10, 30))),
    "all weights": FinetuneConfig(method="full", lr=3e-5, steps=40, warmup_steps=8, **SHARED),
}
# The recipe in which plain training follows the stereotype most on validation rows (one seed): 19.8 % right
# where the stereotype is wrong, 29.3 % with adapters on blocks 10-29, 98.3 % with all weights.
HEADLINE = "adapters on all blocks"
# The same recipe and the same directions, found with doctors and nurses, for sentences about 16 professions.
MORE_PROFESSIONS = "adapters on all blocks, 16 professions"
RECIPES[MORE_PROFESSIONS] = RECIPES[HEADLINE]
