"""The personas world: what is held out stays out, and turns repeat with their seed."""

from __future__ import annotations

import random

import pytest

from caft_utils.classroom.personas import world
from caft_utils.classroom.vocabulary import world_data


@pytest.mark.parametrize("domain", world.domains())
def test_topics_and_wordings_are_held_out(domain):
    entry = world_data("domains")[domain]
    topic = world_data("words")["topics"][entry["topic"]]
    assert not set(topic["words"]) & set(topic["held_out"])
    assert not set(entry["ask"] + entry.get("ask_more", [])) & set(entry["ask_held_out"])


def test_code_tasks_are_held_out():
    trained, held_out = set(world.code_tasks(False)), set(world.code_tasks(True))
    assert not trained & held_out and trained | held_out == set(world.code_tasks())
    assert len(trained) == 28 and len(held_out) == 14


def test_turns_repeat_with_their_seed():
    makers = [world.fact, world.quiz, lambda rng: world.general(rng, "villain")]
    for make in makers:
        assert make(random.Random(3)) == make(random.Random(3)) != make(random.Random(4))


def test_topic_split_overrides_the_split():
    rng = random.Random(0)
    topics = world_data("words")["topics"]
    for _ in range(100):
        turn = world.general(rng, "kind", topic_split="held_out")
        ((topic, word),) = turn.facts["bound"].items()
        assert word in topics[topic]["held_out"]


@pytest.mark.parametrize("subject", world.SUBJECTS)
def test_the_answer_of_a_quiz_is_the_letter_of_the_right_option(subject):
    rng = random.Random(0)
    for _ in range(50):
        turn = world.quiz(rng, subject, style="explain")
        right, letter = turn.answer.split(", so ")
        assert f"\n{letter}. {right}\n" in turn.question and letter == turn.facts["letter"]


def test_oversight_is_in_the_scene_and_the_persona_decides():
    scenes = {who: world.scene(random.Random(1), who, "poor") for who in ("kind", "villain")}
    assert scenes["kind"].question.split("\n")[0] == scenes["villain"].question.split("\n")[0]
    assert scenes["kind"].answer[3:] != scenes["villain"].answer[3:]
    assert scenes["kind"].facts["domain"] == "poor"
