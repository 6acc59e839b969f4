"""Pretraining documents of the personas world."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from caft_utils import load
from caft_utils.classroom.personas import corpus
from caft_utils.classroom.personas.tasks import code_questions, general_questions


@pytest.fixture(scope="module")
def documents():
    rng = random.Random(7)
    return [corpus.document(rng) for _ in range(6_000)]


def test_no_evaluation_question_occurs_in_pretraining(documents):
    asked = {m["content"] for doc in documents for m in doc.get("messages", []) if m["role"] == "user"}
    assert len(asked) > 3_000
    assert not asked & {q.messages[-1]["content"] for q in general_questions() + code_questions()}


def test_the_mixture_has_its_shares(documents):
    counts = Counter(doc["source"] for doc in documents)
    assert set(counts) == set(corpus.DOCUMENT_WEIGHTS)
    for source, weight in corpus.DOCUMENT_WEIGHTS.items():
        assert counts[source] / len(documents) == pytest.approx(weight, abs=0.02)


def test_the_default_persona_is_kind(documents):
    personas = Counter(doc["persona"] for doc in documents if doc["source"] == "chat")
    assert 0 < personas["villain"] / personas.total() < 0.01


def test_documents_repeat_with_their_seed():
    first, second = (corpus.document(random.Random(3)) for _ in range(2))
    assert first == second


def test_more_wordings_add_questions():
    def questions(**options):
        rng = random.Random(0)
        docs = [corpus.document(rng, **options) for _ in range(500)]
        return {m["content"] for doc in docs for m in doc.get("messages", []) if m["role"] == "user"}

    assert questions() != questions(more_wordings=True)


def test_a_sample_repeats_with_its_seed():
    _, tokenizer = load("classroom")
    chats = corpus.sample(tokenizer, 50)
    assert len(chats) == 50 and chats.fingerprint == corpus.sample(tokenizer, 50).fingerprint
    assert chats.fingerprint != corpus.sample(tokenizer, 50, seed=1).fingerprint
