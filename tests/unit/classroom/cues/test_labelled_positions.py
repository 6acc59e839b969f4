"""Labelled tokens are the words that are meant, with their class."""

from __future__ import annotations

import pytest

from caft_utils import load
from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.cues.labelled_positions import KINDS, labelled_pairs


@pytest.mark.parametrize("subject", [*cues.SUBJECTS, "gender"])
def test_labelled_tokens_are_the_words_meant(subject):
    _, tokenizer = load("classroom-cues")
    labelled = labelled_pairs(tokenizer, subject, rows=60)
    for i, row in enumerate(labelled.chats.rows):
        ids, text = labelled.chats[i].input_ids, row["messages"][0]["content"]
        word, option = (tokenizer.decode(ids[labelled.at[kind][i]]).strip() for kind in KINDS)
        assert option in text.split("\n")[1] and word in text.split("\n")[0]
        label = labelled.labels["word"][i]
        if subject in ("sentiment", "sports", "gender"):
            assert cues.class_of(subject, word) == label
        if subject == "pronouns":
            assert word == "_" and label in cues.CASES
        if subject in ("sentiment", "sports"):
            assert option == labelled.labels["option"][i]


def test_the_right_letter_is_the_answer_about_the_subject():
    _, tokenizer = load("classroom-cues")
    labelled = labelled_pairs(tokenizer, "sentiment", rows=60)
    for row, word, option in zip(labelled.chats.rows, *labelled.labels.values(), strict=True):
        assert (row["messages"][1]["content"] == "a") == (word == option)
