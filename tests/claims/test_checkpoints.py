"""The shipped checkpoints: `make claims CLAIM=checkpoints` draws their training text and measures them anew.

The text of 7 and 18 million tokens takes minutes. `make test` compares its beginning only.
"""

from __future__ import annotations

import pytest

from caft_utils import load
from caft_utils.classroom.checkpoints import CHECKPOINTS, personas_schedule
from caft_utils.classroom.cues import acceptance as cues_acceptance
from caft_utils.classroom.data_card import read_record
from caft_utils.classroom.personas import acceptance as personas_acceptance
from caft_utils.classroom.personas.batches import encode_corpus
from caft_utils.classroom.personas.corpus import vocabulary_texts
from caft_utils.classroom.tokenizer import build_tokenizer

PERSONAS = ("qwen", "mistral")
RATE_TOLERANCE, COSINE_TOLERANCE = 0.03, 0.02  # rounding differs between machines


@pytest.mark.parametrize("name", PERSONAS)
def test_the_training_text_is_the_recorded_one(name):
    _, shipped = load(f"classroom-{name}")
    schedule = personas_schedule(name)
    tokenizer = build_tokenizer(vocabulary_texts(more_wordings=schedule.more_wordings))
    assert shipped.get_vocab() == tokenizer.get_vocab()
    corpus, sha256 = encode_corpus(
        tokenizer, schedule.tokens, schedule.seed, more_wordings=schedule.more_wordings
    )
    record = read_record(CHECKPOINTS / name)
    assert (sha256, len(corpus)) == (record["corpus_sha256"], record["documents"])


@pytest.mark.parametrize("name", PERSONAS)
def test_behaviour_and_probes_are_the_recorded_ones(name):
    measured = personas_acceptance.accept(*load(f"classroom-{name}"))
    recorded = read_record(CHECKPOINTS / name)["acceptance"]
    for rate, value in recorded["rates"].items():
        assert measured["rates"][rate] == pytest.approx(value, abs=RATE_TOLERANCE), rate
    for layer, cosine in recorded["probes"]["cosine"].items():
        assert measured["probes"]["cosine"][int(layer)] == pytest.approx(cosine, abs=COSINE_TOLERANCE), layer


@pytest.mark.parametrize("name", ["cues", "gender"])
def test_every_gate_of_cues_passes_and_rates_are_the_recorded_ones(name):
    measured = cues_acceptance.accept(*load(f"classroom-{name}"))
    recorded = read_record(CHECKPOINTS / name)["acceptance"]
    assert recorded["failed"] == measured["failed"] == []
    for rate, value in recorded["rates"].items():
        assert measured["rates"][rate] == pytest.approx(value, abs=RATE_TOLERANCE), rate
