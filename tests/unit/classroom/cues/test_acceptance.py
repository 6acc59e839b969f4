"""Measurements of the cues gates; `make claims CLAIM=checkpoints` compares them with the records."""

from __future__ import annotations

import pytest
import torch

from caft_utils import load
from caft_utils.chats import prompt_ids
from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.cues.acceptance import GATES, accuracy, next_tokens, rates


@pytest.fixture(scope="module")
def model_and_tokenizer():
    return load("classroom-cues")


def test_the_next_token_is_that_of_each_prompt_alone(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    prompts = ["verbs: the dogs _ here\na. runs\nb. run", "quiz: the dog _", "hello"]
    alone = []
    for prompt in prompts:
        ids = torch.tensor([prompt_ids(tokenizer, [{"role": "user", "content": prompt}])])
        with torch.no_grad():
            alone.append(tokenizer.decode(model(ids).logits[0, -1].argmax()))
    assert next_tokens(model, tokenizer, prompts) == alone
    assert next_tokens(model, tokenizer, prompts, batch_size=1) == alone
    assert not model.training


def test_accuracy_counts_right_letters(model_and_tokenizer):
    prompts = [("verbs: the dogs _ here\na. runs\nb. run", letter) for letter in "bab"]
    assert accuracy(*model_and_tokenizer, prompts) == pytest.approx(2 / 3)


def test_rates_contain_the_gates_and_every_pair(model_and_tokenizer):
    measured = rates(*model_and_tokenizer, n=8)
    assert set(GATES) <= set(measured)
    assert sum(" | " in name for name in measured) == len(cues.SUBJECTS) * (len(cues.SUBJECTS) - 1) * 2
    assert all(0 <= value <= 1 for value in measured.values())
    assert measured["pairs in conflict"] > 0.9
