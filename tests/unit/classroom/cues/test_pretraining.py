"""Pretraining of the cues checkpoints."""

from __future__ import annotations

import json
import random

import pytest
import torch
from helpers.paths import REPOSITORY
from torch.nn import functional as F

from caft_utils import load
from caft_utils.classroom.cues import pretraining
from caft_utils.classroom.cues.batches import corpus_hash, document_encoder, step_batches
from caft_utils.classroom.cues.corpus import document
from caft_utils.classroom.cues.pretraining import new_model, pretrain
from caft_utils.classroom.cues.schedules import CuesSchedule, GenderSchedule


@pytest.fixture(scope="module")
def tokenizer():
    return load("classroom-cues")[1]


@pytest.mark.parametrize("name, schedule", [("cues", CuesSchedule()), ("gender", GenderSchedule())])
def test_the_training_text_is_the_recorded_one(tokenizer, name, schedule):
    record = json.loads((REPOSITORY / "data" / "classroom" / name / "recipe.json").read_text())
    assert record["corpus_sha256"] == corpus_hash(tokenizer, schedule)


def test_unknown_architectures_are_refused():
    with pytest.raises(ValueError, match="cues, cues-full"):
        new_model("qwen", 50)


def test_padding_does_not_change_the_loss(tokenizer):
    rng, encode = random.Random(0), document_encoder(tokenizer)
    documents = [encode(document(rng)) for _ in range(6)]
    model = new_model("cues", len(tokenizer)).eval()
    with torch.no_grad():
        together = pretraining._summed_loss(model, documents)
        separate = 0.0
        for ids, learn in documents:
            row, after = torch.tensor([ids]), torch.tensor(learn)[1:]
            logits = model(row).logits[0, :-1]
            separate += F.cross_entropy(logits[after], row[0, 1:][after], reduction="sum").item()
    assert together.item() == pytest.approx(separate, rel=1e-5)


def test_pretraining_continues_with_a_given_model(tokenizer):
    model, _ = load("classroom-cues")
    before, schedule = model.lm_head.weight.detach().clone(), GenderSchedule(steps=2, rows=8)
    after, record = pretrain("cues", tokenizer, schedule, model=model, progress=False)
    assert after is model and not model.training and "caft_id" not in model.__dict__
    assert 0 < (after.lm_head.weight - before).abs().max() < 0.1
    assert record["loss"][0][1] < 1  # a new model begins at 6.7


def test_a_new_model_is_trained_and_its_tokens_are_counted(tokenizer):
    schedule = CuesSchedule(steps=2, rows=8)
    _, record = pretrain("cues", tokenizer, schedule, progress=False)
    batches = list(step_batches(tokenizer, schedule))
    assert record["tokens"] == sum(len(ids) for batch in batches for ids, _ in batch)
    assert record["loss"][0][1] > 6 and record["schedule"]["steps"] == 2
