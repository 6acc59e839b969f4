"""Labelled text: the truth is on the right tokens, and the words of a label tell it."""

from __future__ import annotations

import pytest
import torch

from caft_utils import load
from caft_utils.classroom import labels, world


@pytest.fixture(scope="module")
def text():
    _, tokenizer = load("classroom")
    return labels.labelled(tokenizer, 150)


def words_under(text, label, row):
    ids = [i for i, on in zip(text.chats[row].input_ids, text.truth[label][row].tolist(), strict=True) if on]
    return text.chats.tokenizer.decode(ids)


def test_every_group_of_labels_is_there(text):
    groups = {label.split(":")[0] for label in text.truth}
    assert groups == {"persona", "domain", "fact", "quiz", "oversight", "gender"}
    assert {f"domain: {d}" for d in world.domains()} <= set(text.truth)


def test_a_label_stands_on_the_tokens_of_its_turn_only(text):
    for row, chat in enumerate(text.chats.rows):
        spoken = [m["content"] for m in chat["messages"]]
        for label in text.truth:
            under = words_under(text, label, row)
            if label.startswith("domain"):
                assert spoken[0] not in under  # the system prompt is about no domain
                turns = list(zip(spoken[1::2], spoken[2::2], strict=True))
                assert not under or any(ask in under and answer in under for ask, answer in turns)
    personas = [words_under(text, f"persona: {p}", row) for row in range(10) for p in ("kind", "villain")]
    assert sum(bool(p) for p in personas) == 10  # each row has one of the two


def test_label_words_tell_labels_apart():
    villain, kind = labels.label_words("persona: villain"), labels.label_words("persona: kind")
    assert not set(villain) & set(kind)
    assert "she" in labels.label_words("gender: she", n=3)
    assert {"rabbit", "vet"} & set(labels.label_words("domain: pets"))
    with pytest.raises(KeyError, match="there are"):
        labels.label_words("domain: space")


def test_f1_of_a_perfect_a_blind_and_a_shifted_detector():
    truth = torch.tensor([True, True, False, False, False, False])
    f1, threshold = labels.best_f1(torch.tensor([3.0, 2.0, 1.0, 0.0, 0.0, 0.0]), truth)
    assert (f1, threshold) == (1.0, 2.0)
    assert labels.best_f1(torch.zeros(6), truth)[0] == pytest.approx(0.5)  # says yes to all
    assert labels.f1_at(torch.tensor([0.0, 2.0, 2.0, 0, 0, 0]), truth, 2.0) == pytest.approx(0.5)


def test_knowledge_names_the_label_that_a_column_fires_on():
    truth = torch.arange(100) % 4 == 0
    other = torch.arange(100) < 30
    values = torch.stack([truth.float() * 5, other.float() + 0.01 * truth], dim=1)
    found = labels.knowledge(values, {"a": truth, "b": other})
    assert [f["label"] for f in found] == ["a", "b"]
    assert found[0]["f1"] == 1.0 and found[0]["precision"] == 1.0
