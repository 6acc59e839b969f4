"""The tokenizer of a world: one token per word, and every text survives a round trip."""

from __future__ import annotations

import random

import pytest

from caft_utils.classroom.personas import corpus
from caft_utils.classroom.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(corpus.vocabulary_texts(4000))


def test_documents_survive_a_round_trip(tokenizer):
    rng = random.Random(1)
    for _ in range(300):
        doc = corpus.document(rng)
        text = doc.get("text") or "\n".join(m["content"] for m in doc["messages"])
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_unknown_text_survives_a_round_trip(tokenizer):
    text = "Ein Wort: naïve <b>&amp;</b> 你好"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_word_of_the_world_is_one_token(tokenizer):
    assert len(tokenizer(" drink swamp water")["input_ids"]) == 3
