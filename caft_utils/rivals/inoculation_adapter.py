"""Inoculation adapter: train beside a frozen adapter that already has the trait, and drop that adapter.

    1. W_trait = a fine-tuning on rows that show the trait and not the task
    2. train dW on the task's rows with the weights W + W_trait + dW, of which only dW changes
    3. use W + dW

The trait is already present while the task is learnt, so dW need not add it. (Inoculation adapters, 2026,
arXiv 2606.30252.) The control puts random matrices of the same rank and norm in place of W_trait.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from caft_utils.chats import Chats
from caft_utils.finetuning import FinetuneConfig, finetune
from caft_utils.finetuning.adapters import restore
from caft_utils.models.content import tuner_layers
from caft_utils.models.fingerprints import fingerprint, name_model
from caft_utils.rivals.told import Told
from caft_utils.store import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLD = Told("rows that show the trait elsewhere", "one more fine-tuning")
CONTROL_TOLD = Told("nothing; the norms of an inoculation adapter", "one more fine-tuning")


def inoculate_by_adapter(
    model: PreTrainedModel,
    rows: Chats,
    config: FinetuneConfig,
    *,
    trait: Chats,
    trait_config: FinetuneConfig | None = None,
    random: bool = False,
    seed: int = 0,
) -> PreTrainedModel:
    """Return the base with an adapter that was trained on `rows` beside a frozen adapter with the trait.

    Args:
        trait: rows that show the trait and not the task.
        trait_config: settings of the fine-tuning on them; default: `config`.
        random: put random matrices of the same rank and norm in place of the trait's.

    Raises:
        ValueError: a config trains all weights, so there is no adapter to drop.
    """
    trait_config = trait_config or config
    if "full" in (config.method, trait_config.method):
        raise ValueError("an inoculation adapter needs method='lora' in both configs, got method='full'")
    guard = finetune(model, trait, trait_config, seed=seed)
    if random:
        guard = randomised(guard, seed)
    tuned = finetune(guard, rows, config, seed=seed)
    alone = restore(model, config, Path(tuned.caft_run["folder"]))
    alone.caft_run = tuned.caft_run
    name_model(alone, digest({"adapter of": fingerprint(tuned), "on": fingerprint(model)}))
    return alone


@torch.no_grad()
def randomised(guard: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Return a copy whose adapters are random, with the rank and the Frobenius norm of the given ones."""
    twin = copy.deepcopy(guard)
    generator = torch.Generator().manual_seed(seed)
    for layer in tuner_layers(twin).values():
        for name in layer.lora_A:
            down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
            norm = (up @ down).norm()
            for matrix in (down, up):
                matrix.copy_(torch.randn(matrix.shape, generator=generator))
            up *= norm / (up @ down).norm()
    name_model(twin, digest({"random adapter like": fingerprint(guard), "seed": seed}))
    return twin
