"""Runs that cannot share their weights are refused with the reason (two processes: test_processes.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.ranks import environment_of
from helpers.training import QUICK, chat_rows

from caft_utils.chats import Chats
from caft_utils.finetuning import sharding
from caft_utils.finetuning.run import finetune


@pytest.fixture
def launched(monkeypatch):
    """The environment of one of two processes of the shipped config."""
    for name, value in {**environment_of("fsdp2"), "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


class Nothing:
    fingerprint = "nothing"

    def __call__(self, model, batch, logits):
        return torch.zeros(())


@pytest.mark.parametrize(
    "changes, objective, variables, message",
    [
        ({"method": "full"}, None, {}, 'method="full" freezes none.*lora.*ddp.yaml'),
        ({}, Nothing(), {}, "objective.*ddp.yaml"),
        ({}, None, {"FSDP_VERSION": "1"}, "FSDP_VERSION is '1' and must be '2'.*fsdp2.yaml"),
        ({}, None, {"FSDP_OFFLOAD_PARAMS": "true"}, "FSDP_OFFLOAD_PARAMS is 'true'"),
        ({"batch_size": 3}, None, {}, "2 processes cannot share"),
    ],
)
def test_runs_that_sharding_does_not_have_are_refused(
    launched, model, tokenizer, monkeypatch, store_folder, changes, objective, variables, message
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        finetune(model, Chats(tokenizer, chat_rows()), replace(QUICK, **changes), objective=objective)
    assert not store_folder.exists()


def test_quantised_weights_are_refused(launched, model, tokenizer):
    packed = torch.nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)
    model.model.layers[0].mlp.register_parameter("packed", packed)
    with pytest.raises(ValueError, match="1 weights of this model are quantised.*mlp.packed.*ddp.yaml"):
        finetune(model, Chats(tokenizer, chat_rows()), QUICK)


def test_accelerate_does_not_shard_once_more(launched):
    assert sharding.is_requested()
    with sharding.hidden_from_accelerate():
        assert not sharding.is_requested()
    assert sharding.is_requested()


def test_a_model_that_waits_on_the_cpu_is_trained_on_the_gpu_of_its_process(launched, model, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert sharding.training_device(model) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert sharding.training_device(model) == torch.device("cuda", 1)
    monkeypatch.delenv(sharding.ASKED)
    assert sharding.training_device(model) == torch.device("cpu")
