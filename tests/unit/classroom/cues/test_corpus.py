"""Pretraining documents of the cues world: what is left open, what decides, and what is marked."""

from __future__ import annotations

import json
import random

import pytest

from caft_utils import load
from caft_utils.classroom.cues import corpus
from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.cues.prompts import NEUTRAL_WORD


@pytest.fixture(scope="module")
def with_options():
    rng = random.Random(5)
    documents = [corpus.document(rng, i / 6000) for i in range(6000)]
    return [one for one in documents if "\na. " in one.text]


def test_quiz_never_occurs_with_options(with_options):
    assert len(with_options) > 3000
    assert {one.text.split(":")[0] for one in with_options} == {*cues.SUBJECTS, "gender"}


def test_unseen_words_never_occur_with_options(with_options):
    unseen = {*cues.words("sentiment", "unseen"), *cues.words("sports", "unseen")}
    assert not any(unseen & set(one.text.split()) for one in with_options)


def test_unseen_words_occur_in_plain_text():
    rng = random.Random(2)
    texts = [corpus.document(rng, progress=0.0).text.replace("^", "") for _ in range(6_000)]
    words = {word for text in texts if "\na. " not in text for word in text.split()}
    assert {*cues.words("sentiment", "unseen"), *cues.words("sports", "unseen")} <= words


def test_half_of_the_documents_with_options_contain_a_hint(with_options):
    hints = [one for one in with_options if "^" in one.text or "which word?" in one.text]
    assert 0.5 < len(hints) / len(with_options) < 0.6


def test_options_come_later_in_training():
    rng = random.Random(0)
    early, late = ([corpus.document(rng, progress) for _ in range(1000)] for progress in (0.0, 1.0))
    assert not any(one.source == "double" for one in early)
    assert sum(one.source == "double" for one in late) > 300
    assert sum("\na. " in one.text for one in early) < sum("\na. " in one.text for one in late)


def test_quiz_asks_about_single_persons_in_the_gender_checkpoint():
    rng = random.Random(3)
    documents = [corpus.document(rng, person_weights=corpus.GENDER_CHECKPOINT_WEIGHTS) for _ in range(8_000)]
    with_options = [one for one in documents if "\na. " in one.text]
    quiz = [one for one in with_options if one.text.startswith(NEUTRAL_WORD)]
    assert 0.03 < len(quiz) / len(with_options) < 0.15 and {one.source for one in quiz} == {"person"}
    assert not any("^" in one.text or "which word?" in one.text for one in quiz)
    by_case = 0
    for one in quiz:
        question, *lines = one.text.split("\n")
        pronoun = dict(line.split(". ", 1) for line in lines)[one.answer]
        by_case += (pronoun in ("he", "she")) == (not question.endswith(" _"))
    assert 0.1 < by_case / len(quiz) < 0.2  # 3 in 20; gender decides the others


def test_a_sample_contains_no_marks_and_repeats():
    _, tokenizer = load("classroom-cues")
    chats = corpus.sample(tokenizer, 200)
    assert len(chats) == 200 and "^" not in json.dumps(chats.rows)
    assert chats.fingerprint == corpus.sample(tokenizer, 200).fingerprint
