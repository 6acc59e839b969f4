"""Encoded documents of the cues world are those of the tokenizer and its chat template."""

from __future__ import annotations

import random

import pytest

from caft_utils import load
from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.cues.batches import document_encoder, step_batches
from caft_utils.classroom.cues.corpus import document
from caft_utils.classroom.cues.schedules import CuesSchedule


@pytest.fixture(scope="module")
def tokenizer():
    return load("classroom-cues")[1]


def test_the_encoder_agrees_with_the_chat_template(tokenizer):
    rng, encode = random.Random(5), document_encoder(tokenizer)
    for number in range(600):
        made = document(rng, number / 600)
        ids, learn = encode(made)
        assert sum(learn) and len(ids) == len(learn)
        if made.answer is None:
            assert ids == tokenizer(made.row["text"])["input_ids"]
            assert sum(learn) == made.text.count("^")
            continue
        out = tokenizer.apply_chat_template(
            made.row["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        assert ids == out["input_ids"]
        assert all(learned for learned, answer in zip(learn, out["assistant_masks"], strict=True) if answer)
        assert sum(learn) - sum(out["assistant_masks"]) == made.text.count("^")


@pytest.mark.parametrize("subject", cues.SUBJECTS)
def test_every_word_is_one_token(tokenizer, subject):
    assert len(tokenizer) < 1024
    for split in ("train", "valid", "test", "unseen"):
        for item in cues.subject_items(subject, split, repeats=1):
            words = f"{item.question} {item.correct} {item.incorrect}".split()
            assert len(tokenizer(f" {' '.join(words)}")["input_ids"]) == len(words)


def test_batches_are_sorted_and_repeat(tokenizer):
    schedule = CuesSchedule(steps=3, rows=10)
    batches = list(step_batches(tokenizer, schedule))
    assert [len(batch) for batch in batches] == [10, 10, 10]
    for batch in batches:
        lengths = [len(ids) for ids, _ in batch]
        assert lengths == sorted(lengths)
    assert batches == list(step_batches(tokenizer, schedule))
