"""The spurious-cue tasks on the items of the cues world."""

from __future__ import annotations

import pytest

from caft_utils import load
from caft_utils.classroom.cues.tasks import double_choice, gender_choice


@pytest.fixture(scope="module")
def tokenizer():
    return load("classroom-cues")[1]


def test_double_choice_asks_under_the_neutral_word(tokenizer):
    task = double_choice(tokenizer, "verbs", "sports", intended="first", rows=16, questions=8)
    assert len(task.train) == 16 and len(task.question_set("ood")) == 8
    assert task.train.rows[0]["messages"][0]["content"].startswith("quiz: ")


def test_double_choice_refuses_unknown_subjects(tokenizer):
    with pytest.raises(ValueError, match="verbs, sentiment, sports, pronouns"):
        double_choice(tokenizer, "verbs", "music", intended="first")


def test_gender_choice_asks_about_professions(tokenizer):
    task = gender_choice(tokenizer, rows=16, questions=8)
    assert len(task.train) == 16 and len(task.question_set("ood")) == 8
    assert all(q.messages[0]["content"].startswith("quiz: the ") for q in task.questions)
