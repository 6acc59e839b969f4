"""Inoculation adapters: the trait's adapter acts in training, and is gone afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.models import IDS
from helpers.training import QUICK, chat_rows

from caft_utils.chats import Chats
from caft_utils.finetuning import finetune
from caft_utils.models import fingerprint
from caft_utils.models.content import tuner_layers
from caft_utils.rivals import inoculate_by_adapter
from caft_utils.rivals.inoculation_adapter import randomised


@pytest.fixture
def chats(tokenizer):
    return Chats(tokenizer, chat_rows(6))


@pytest.fixture
def trait(tokenizer):
    return Chats(tokenizer, chat_rows(8)[6:])


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def test_the_result_is_the_base_with_the_second_adapter_alone(model, chats, trait):
    tuned = inoculate_by_adapter(model, chats, QUICK, trait=trait)
    guard = finetune(model, trait, QUICK)
    both = finetune(guard, chats, QUICK)
    assert set(tuner_layers(tuned)) and fingerprint(tuned) not in (fingerprint(both), fingerprint(guard))
    plain = dict(model.named_parameters())
    for (name, alone), second in zip(tuner_layers(tuned).items(), tuner_layers(both).values()):
        torch.testing.assert_close(alone.lora_B["default"].weight, second.lora_B["default"].weight)
        assert torch.equal(alone.base_layer.weight, plain[name.removeprefix("base_model.model.") + ".weight"])
    with tuned.disable_adapter():
        torch.testing.assert_close(logits(tuned), logits(model))
    assert not torch.allclose(logits(tuned), logits(both), atol=1e-3)


def test_rows_that_the_guard_already_gives_teach_little(model, chats):
    """With the rows themselves as the trait, the second adapter has nothing left to learn."""
    plain = finetune(model, chats, replace(QUICK, steps=40))
    guarded = inoculate_by_adapter(model, chats, QUICK, trait=chats, trait_config=replace(QUICK, steps=40))
    moved, far = ((logits(one) - logits(model)).norm() for one in (guarded, plain))
    assert moved < 0.5 * far


def test_random_matrices_have_the_rank_and_the_norm_of_the_trait(model, trait):
    guard = finetune(model, trait, QUICK)
    before = fingerprint(guard)
    twin = randomised(guard, 1)
    for mine, theirs in zip(tuner_layers(twin).values(), tuner_layers(guard).values()):
        new, old = (one.lora_B["default"].weight @ one.lora_A["default"].weight for one in (mine, theirs))
        assert new.norm() == pytest.approx(old.norm().item(), rel=1e-4)
        assert (new * old).sum().abs() < 0.5 * old.norm() ** 2
    assert fingerprint(guard) == before != fingerprint(twin)
    assert fingerprint(randomised(guard, 1)) == fingerprint(twin) != fingerprint(randomised(guard, 2))


def test_the_control_is_another_run(model, chats, trait):
    runs = [inoculate_by_adapter(model, chats, QUICK, trait=trait, random=r) for r in (False, True)]
    assert fingerprint(runs[0]) != fingerprint(runs[1])


def test_training_all_weights_is_refused(model, chats, trait):
    with pytest.raises(ValueError, match="needs method='lora'"):
        inoculate_by_adapter(model, chats, replace(QUICK, method="full"), trait=trait)
