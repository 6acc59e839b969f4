"""Early stopping and a smaller learning rate: plain fine-tuning, tuned with the same effort as its rivals.

A model that learns less also learns less of the trait. Methods must be compared at equal task score, so every
comparison needs this rival at its best step and learning rate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from caft_utils.finetuning import FinetuneConfig, at_step, finetune
from caft_utils.rivals.told import Told

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.chats import Chats

TOLD = Told("nothing", "none; it stops earlier")


def stop_early(
    model: PreTrainedModel,
    rows: Chats,
    config: FinetuneConfig,
    *,
    step: int,
    lr: float | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """Return the plain fine-tuning after `step` optimiser steps at this peak learning rate.

    lr: peak learning rate; default: `config.lr`. The schedule is still that of the full run.
    """
    config = config if lr is None else replace(config, lr=lr)
    return at_step(finetune(model, rows, config, seed=seed, snapshots=(step,)), model, step)
