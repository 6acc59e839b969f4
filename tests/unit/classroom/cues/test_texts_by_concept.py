"""Texts sorted by concept."""

from __future__ import annotations

import pytest

from caft_utils import load
from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.cues.texts_by_concept import gender_checks, gender_texts, subject_texts


@pytest.fixture(scope="module")
def tokenizer():
    return load("classroom-cues")[1]


@pytest.mark.parametrize("named", [False, True])
def test_subject_texts_name_the_subject_only_if_asked_to(tokenizer, named):
    texts = subject_texts(tokenizer, rows=20, named=named)
    assert set(texts) == set(cues.SUBJECTS)
    for subject, chats in texts.items():
        first = {row["messages"][0]["content"].split(":")[0] for row in chats.rows}
        assert len(chats) == 20 and first == {subject if named else "quiz"}


def test_gender_texts_have_no_gap_and_speak_of_one_gender(tokenizer):
    pronouns = {"male": {"he", "him"}, "female": {"she", "her"}}
    for gender, chats in gender_texts(tokenizer, rows=20).items():
        texts = [row["text"].strip(".").split() for row in chats.rows]
        assert len(texts) == 20 and not any("_" in text for text in texts)
        assert all(pronouns[gender] & set(text) for text in texts)


@pytest.mark.parametrize(
    "name, allowed",
    [("gender", ({"he", "she"}, {"him", "her"})), ("case", ({"he", "him"}, {"she", "her"}))],
)
def test_options_of_a_check_differ_in_one_respect(tokenizer, name, allowed):
    checks = gender_checks(tokenizer, rows=20)
    assert set(checks) == {"gender", "case"} and len(checks[name]) == 20
    for row in checks[name].rows:
        lines = row["messages"][0]["content"].split("\n")[1:]
        assert {line.split(". ")[1] for line in lines} in allowed
