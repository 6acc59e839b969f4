"""Labelled text: the truth is on the right tokens, and the words of a label tell it."""

from __future__ import annotations

import pytest
import torch

from caft_utils import load
from caft_utils.classroom.personas import labels, world
from caft_utils.residual import stream_activations


@pytest.fixture(scope="module")
def text():
    _, tokenizer = load("classroom")
    return labels.labelled(tokenizer, 150)


def test_every_group_of_labels_is_there(text):
    assert {label.split(":")[0] for label in text.labels} == {
        "persona",
        "domain",
        "fact",
        "quiz",
        "oversight",
        "gender",
    }
    assert {f"domain: {d}" for d in world.domains()} <= set(text.labels)


def test_each_message_is_found_and_carries_the_labels_of_its_turn(text):
    found = iter(text.messages)
    for row, chat in enumerate(text.chats.rows):
        mine = [next(found) for _ in chat["messages"]]
        for message, said in zip(mine, chat["messages"], strict=True):
            ids = text.chats[row].input_ids[message.start : message.stop]
            shown = text.chats.tokenizer.decode(ids)
            assert message.row == row
            assert shown == f"<|im_start|>{said['role']}\n{said['content']}<|im_end|>\n"
        system, *turns = mine
        (persona,) = system.labels
        assert persona.startswith("persona")
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            assert len(question.labels) == 1 and question.labels <= answer.labels
            assert answer.labels - question.labels in (frozenset(), {persona})
    assert next(found, None) is None


def test_strongest_value_of_each_message(text):
    model, _ = load("classroom")
    part = labels.LabelledChats(text.chats[:3], [m for m in text.messages if m.row < 3])
    got = labels.strongest(model, part, 1, lambda h: h[:, :4])
    for row in range(3):
        hidden = next(stream_activations(model, text.chats[row : row + 1], [1])).hidden[1][:, :4]
        for number, m in enumerate(part.messages):
            if m.row == row:
                expected = hidden[max(1, m.start) : m.stop].amax(0)
                torch.testing.assert_close(got[number], expected, rtol=1e-3, atol=1e-4)


def test_label_words_tell_labels_apart():
    villain, kind = labels.label_words("persona: villain"), labels.label_words("persona: kind")
    assert not set(villain) & set(kind)
    assert "she" in labels.label_words("gender: she", n=3)
    assert {"rabbit", "vet"} & set(labels.label_words("domain: pets"))
    with pytest.raises(KeyError, match="there are"):
        labels.label_words("domain: space")


def test_f1_of_a_perfect_a_blind_and_a_shifted_detector():
    truth = torch.tensor([True, True, False, False, False, False])
    columns = torch.tensor([[3.0, 2.0, 1.0, 0.0, 0.0, 0.0], [0.0] * 6]).T
    f1, threshold = labels.best_f1(columns, truth)
    assert f1.tolist() == pytest.approx([1.0, 0.5])  # the second can only say yes to all
    assert threshold[0] == 2.0
    assert labels.f1_at(torch.tensor([0.0, 2.0, 2.0, 0, 0, 0]), truth, 2.0) == pytest.approx(0.5)


def test_knowledge_is_full_where_a_column_is_the_label(text):
    villain = text.truth("persona: villain").float()
    columns = torch.stack([villain * 5, 1 - villain, torch.rand(len(villain))], dim=1)
    known = labels.knowledge(columns, text)
    assert known["persona: villain"][0] == 1.0 and known["persona: villain"][1] < 0.8
    assert known["domain: pets"].max() < 0.5
