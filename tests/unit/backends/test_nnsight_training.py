"""Training in traces ends with the weights of `finetune`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.training import QUICK, chat_rows, weights

from caft_utils.backends.nnsight_models import trace_model
from caft_utils.backends.nnsight_training import train
from caft_utils.chats import Chats
from caft_utils.directions import Directions
from caft_utils.finetuning import finetune
from caft_utils.interventions import ablate
from caft_utils.residual import has_hooks

pytestmark = pytest.mark.usefixtures("nnsight")


@pytest.fixture
def chats(tokenizer):
    return Chats(tokenizer, chat_rows(10))


@pytest.fixture
def during():
    generator = torch.Generator().manual_seed(3)
    return ablate(Directions({layer: torch.randn(2, 64, generator=generator) for layer in (0, 1)}))


def adapter_gap(one, other):
    one, other = weights(one), weights(other)
    names = [name for name in one if "lora" in name]
    assert len(names) == 42
    return max((one[name] - other[name]).abs().max().item() for name in names)


@pytest.mark.parametrize(
    "changes, remote",
    [
        ({}, False),
        ({"steps": 2}, "local"),
        ({"accumulate": 2, "batch_size": 3, "weight_decay": 0.3, "warmup_steps": 0.5}, False),
        ({"gradient_checkpointing": True}, False),
        ({"schedule": "cosine", "max_grad_norm": 0.0}, False),
    ],
)
def test_the_adapter_is_that_of_finetune(model, tokenizer, chats, during, changes, remote):
    config = replace(QUICK, **changes)
    before = weights(model)
    want = finetune(model, chats, config, during=during, seed=1, reuse_prefix=False)
    got, losses = train(model, tokenizer, chats, config, during=during, seed=1, remote=remote)
    assert losses == pytest.approx(want.caft_run["loss"], abs=1e-5)
    assert adapter_gap(got, want) < 1e-5
    assert not got.training and all(torch.equal(before[n], v) for n, v in weights(model).items())
    if not changes:
        plain, _ = train(model, tokenizer, chats, config, seed=1)
        assert adapter_gap(got, plain) > 1e-3
        other, _ = train(model, tokenizer, chats, config, during=during, seed=2)
        assert adapter_gap(got, other) > 1e-3


@pytest.mark.parametrize("vocabulary", [9000])
def test_selected_logits_and_half_precision(tiny, tokenizer, chats, during, vocabulary):
    model = tiny("qwen2", vocab_size=vocabulary)  # large enough for logits at answers only
    config = replace(QUICK, steps=3)
    want = finetune(model, chats, config, during=during, reuse_prefix=False)
    got, losses = train(model, tokenizer, chats, config, during=during)
    assert adapter_gap(got, want) < 1e-5
    config = replace(config, bf16=True)
    want = finetune(model, chats, config, during=during, reuse_prefix=False)
    _, losses = train(model, tokenizer, chats, config, during=during)
    assert losses == pytest.approx(want.caft_run["loss"], abs=2e-2)


def test_what_it_cannot_do_is_refused(model, tokenizer, chats):
    with pytest.raises(ValueError, match="method='full'"):
        train(model, tokenizer, chats, replace(QUICK, method="full"))
    with pytest.raises(ValueError, match="optimizer='adafactor'"):
        train(model, tokenizer, chats, replace(QUICK, optimizer="adafactor"))
    with pytest.raises(ValueError, match="gradients cannot come from NDIF"):
        train(model, tokenizer, chats, QUICK, remote=True)


def test_a_wrapped_model_is_fine_tuned_as_before(model, tokenizer, chats, during):
    config = replace(QUICK, steps=2)
    want = finetune(model, chats, config, during=during)
    trace_model(model, tokenizer)
    got = finetune(model, chats, config, during=during, seed=0, save_every=7, snapshots=[1])
    assert adapter_gap(got, want) == 0 and not has_hooks(got)
    traced, _ = train(model, tokenizer, chats, config, during=during)
    assert adapter_gap(traced, want) < 1e-5
