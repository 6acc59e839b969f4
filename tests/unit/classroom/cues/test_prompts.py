"""Prompts of the cues world."""

from __future__ import annotations

import random

import pytest

from caft_utils.classroom.cues.prompts import FORMAT, choice_prompt, pair_prompt, single_prompt
from caft_utils.tasks.items import Item

FIRST, SECOND = Item("kaito won in _", "tennis", "rowing"), Item("the play is fine", "positive", "negative")


def lines_of(prompt):
    return dict(line.split(". ", 1) for line in prompt.split("\n")[1:])


def test_the_correct_options_stand_in_their_lines():
    prompt = choice_prompt("quiz", [FIRST, SECOND], "ab")
    assert prompt == ("quiz: kaito won in _ | the play is fine\na. tennis, negative\nb. rowing, positive")


def test_the_letter_of_a_single_item_names_the_right_option():
    for seed in range(10):
        prompt, letter = single_prompt("sports", FIRST, random.Random(seed))
        assert prompt.startswith("sports: ") and lines_of(prompt)[letter] == "tennis"


@pytest.mark.parametrize("counts", [0, 1])
@pytest.mark.parametrize("conflict", [True, False])
def test_letters_of_a_pair_agree_or_conflict(counts, conflict):
    rng = random.Random(1)
    for _ in range(10):
        prompt, letter = pair_prompt("sports", FIRST, SECOND, counts, rng, conflict=conflict)
        own, other = (FIRST, SECOND) if counts == 0 else (SECOND, FIRST)
        options = lines_of(prompt)[letter].split(", ")
        assert own.correct in options and (other.correct in options) != conflict


@pytest.mark.parametrize("right", [0, 1])
def test_the_format_of_the_tasks_agrees_with_pretraining(right):
    (turn,) = FORMAT.prompt(FIRST, right, "sports")
    assert turn["content"] == choice_prompt("sports", [FIRST], "ab"[right])
