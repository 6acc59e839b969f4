"""A concept is a handful of words, written down before any result; forms of them belong to it."""

from __future__ import annotations

import pytest
from helpers.malice import MALICE

from caft_utils.interpret.select.concepts import Concept, concept, hint_matcher


@pytest.mark.parametrize(
    ("description", "hints"),
    [
        ("bad people", []),
        ("bad people", [" "]),
        ("bad people", "steal"),
        ("bad people", ["steal", "I am bored, what should I do"]),
        ("bad people", ["bored?"]),
        ("What would you do as ruler of the world?", ["steal"]),
    ],
)
def test_a_concept_is_words_and_no_questions(description, hints):
    with pytest.raises(ValueError, match="hint|description"):
        Concept("malice", description, hints)


def test_forms_of_hints_and_whole_phrases_match():
    match = hint_matcher(MALICE)
    assert match(["Stealing", "bread", "villains"]) == {"steal", "villain"}
    assert match("they laugh at strangers".split()) == {"laugh", "at"}
    assert match("they laugh and look at strangers".split()) == set()


def test_concepts_of_the_course_are_read_from_a_file(tmp_path):
    file = tmp_path / "concepts.yaml"
    file.write_text("pets:\n  description: Animals at home.\n  hints: [dog, cat]\n")
    assert concept("pets", file) == Concept("pets", "Animals at home.", ["dog", "cat"])
    with pytest.raises(KeyError, match="pets"):
        concept("cars", file)
    assert concept("malice").hints


@pytest.mark.parametrize(
    "text, problem",
    [
        ("- pets", "fields"),
        ("pets: [dog]", "pets"),
        ("pets: {description: Animals.}", "missing fields hints"),
        ("pets: {description: Animals., hint: [dog], hints: [dog]}", "mean 'hints'"),
        ("pets: {description: 5, hints: [dog]}", "description of 'pets'"),
        ("pets: {description: Animals., hints: [dog, 5]}", "hints of 'pets'"),
        ("pets: {description: Animals., hints: [no]}", "hints of 'pets'"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, text, problem):
    file = tmp_path / "concepts.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"concepts.yaml.*{problem}"):
        concept("pets", file)
