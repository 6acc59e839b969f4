"""Fine-tuning settings: what they refuse, and how they enter the key of a stored run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caft_utils.finetune_config import FinetuneConfig
from caft_utils.models import preset
from caft_utils.store import digest


def run_key(config):
    """A stored run's digest, with everything but the config held fixed."""
    run = {"format": 1, "model": "m", "chats": "c", "recipe": config.key(), "during": None, "seed": 0}
    return digest(run | {"snapshots": []})


@pytest.mark.parametrize(
    "config, expected",
    [
        (FinetuneConfig(), "6a150f48c71141dd06fa5e825f39732924fd2606ce7a945d8785e321f6f8c93d"),
        ("classroom", "2805290fb882ab3eaaa01949ff47ccf2fd7339f26ada12603770024e58ae3f6c"),
        ("classroom-cues", "25a2e88e862f9e42bc408059f4cdb1e201b375f6f6c69a08adfbf98021272a1f"),
        ("google/gemma-2-2b", "3835877c2c9916ab4e9ab25039ac9f22b0cc7d254684cad261471dccdb4e7343"),
    ],
    ids=["default", "classroom", "classroom-cues", "gemma"],
)
def test_keys_of_runs_from_before_optimizer_and_blocks_are_still_theirs(config, expected):
    assert run_key(preset(config).finetune_config if isinstance(config, str) else config) == expected


def test_a_chosen_optimizer_or_block_enters_the_key():
    configs = [
        FinetuneConfig(),
        FinetuneConfig(optimizer="adamw_8bit"),
        FinetuneConfig(optimizer="adamw_torch"),
        FinetuneConfig(blocks=[1, 2]),
        FinetuneConfig(blocks=[1]),
    ]
    assert len({run_key(config) for config in configs}) == len(configs)
    assert run_key(FinetuneConfig(blocks=[2, 1, 2])) == run_key(FinetuneConfig(blocks=(1, 2)))


def test_a_key_gives_its_config_back():
    config = FinetuneConfig(optimizer="sgd", blocks=(0, 2), lr=0.1)
    assert FinetuneConfig(**config.key()) == config


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "lore"}, "method must be"),
        ({"lr": -1}, "lr must be positive, got -1"),
        ({"steps": 0}, "steps must be positive"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; expected one of .*adamw_8bit"),
        ({"blocks": []}, "blocks must name at least one decoder block"),
        ({"blocks": [-1]}, "blocks must name"),
        ({"blocks": [True]}, "blocks must name"),
        ({"lr": float("inf")}, "lr must be"),
        ({"lr": "0.1"}, "lr must be .*without quotes"),
        ({"steps": "20"}, "steps must be .*without quotes"),
        ({"dropout": 5}, "dropout must be"),
        ({"weight_decay": float("-inf")}, "weight_decay must be"),
        ({"alpha": float("nan")}, "alpha must be"),
        ({"r": 1.5}, "r must be a whole number"),
        ({"batch_size": True}, "batch_size must be"),
        ({"betas": (0.9,)}, "betas must be two"),
        ({"betas": (0.9, 1)}, "betas, entry 1"),
        ({"targets": ()}, "targets must be"),
        ({"targets": [1]}, "targets, entry 0"),
        ({"bf16": "no"}, "bf16 must be"),
        ({"schedule": None}, "schedule must be"),
        ({"optimizer": 3}, "optimizer must be"),
    ],
)
def test_wrong_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(**changes)


def test_scalars_of_numpy_and_torch_and_yaml_give_the_key_of_pythons_own():
    plain = FinetuneConfig(lr=1e-4, r=8, steps=3, alpha=16, blocks=(0, 1), betas=(0.5, 0.25), bf16=True)
    other = FinetuneConfig(
        lr="1e-4",
        r=np.int64(8),
        steps=torch.tensor(3),
        alpha=np.int32(16),
        blocks=np.array([1, 0]),
        betas=torch.tensor([0.5, 0.25]),
        bf16=np.bool_(True),
    )
    assert other == plain and run_key(other) == run_key(plain)


def test_total_steps():
    assert FinetuneConfig(steps=7).total_steps(1000) == 7
    assert FinetuneConfig(batch_size=2, accumulate=8, epochs=1.5).total_steps(100) == 10  # 9.4 steps
