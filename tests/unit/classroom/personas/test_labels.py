"""Labelled text: labels are on the right tokens, and the words of a label indicate it."""

from __future__ import annotations

import pytest

from caft_utils import load
from caft_utils.classroom.personas import world
from caft_utils.classroom.personas.labels import label_words, labelled_chats


@pytest.fixture(scope="module")
def text():
    _, tokenizer = load("classroom")
    return labelled_chats(tokenizer, 150)


def test_every_group_of_labels_occurs(text):
    groups = {label.split(":")[0] for label in text.labels}
    assert groups == {"persona", "domain", "fact", "quiz", "oversight", "gender"}
    assert {f"domain: {domain}" for domain in world.domains()} <= set(text.labels)


def test_each_message_has_its_tokens_and_the_labels_of_its_turn(text):
    messages = iter(text.messages)
    for row, chat in enumerate(text.chats.rows):
        own = [next(messages) for _ in chat["messages"]]
        for message, content in zip(own, chat["messages"], strict=True):
            ids = text.chats[row].input_ids[message.start : message.stop]
            assert message.row == row
            expected = f"<|im_start|>{content['role']}\n{content['content']}<|im_end|>\n"
            assert text.chats.tokenizer.decode(ids) == expected
        system, *turns = own
        (persona,) = system.labels
        assert persona.startswith("persona")
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            assert len(question.labels) == 1 and question.labels <= answer.labels
            assert answer.labels - question.labels in (frozenset(), {persona})
    assert next(messages, None) is None


def test_truth_marks_the_messages_of_a_label(text):
    truth = text.truth("persona: villain")
    assert truth.tolist() == ["persona: villain" in message.labels for message in text.messages]


def test_words_of_a_label():
    villain, kind = label_words("persona: villain"), label_words("persona: kind")
    assert not set(villain) & set(kind)
    assert "she" in label_words("gender: she", n=3)
    assert {"rabbit", "vet"} & set(label_words("domain: pets"))


def test_an_unknown_label_is_an_error():
    with pytest.raises(KeyError, match="domain: pets"):
        label_words("domain: space")
