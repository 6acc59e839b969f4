"""Templates: `pattern` matches exactly what `expand` draws."""

from __future__ import annotations

import random
import re

import pytest

from caft_utils.classroom.grammar import expand, pattern, with_article

WORDS = {"animal": ["dog", "cat"], "food": ["soup", "pears"]}
TEMPLATE = "feed the {animal} [some|no] {food} and the {animal} sleeps."


def test_pattern_matches_what_expand_draws():
    rng = random.Random(0)
    texts = {expand(TEMPLATE, rng, WORDS) for _ in range(100)}
    assert len(texts) == 8 and all(re.fullmatch(pattern(TEMPLATE, WORDS), text) for text in texts)


def test_pattern_refuses_another_filler_in_a_repeated_slot():
    assert not re.fullmatch(pattern(TEMPLATE, WORDS), "feed the dog some soup and the cat sleeps.")


def test_bound_slots_are_fixed():
    bound = {"animal": "cat"}
    assert all("cat" in expand(TEMPLATE, random.Random(seed), WORDS, bound) for seed in range(10))
    assert re.fullmatch(pattern(TEMPLATE, WORDS, bound), "feed the cat no soup and the cat sleeps.")
    assert not re.fullmatch(pattern(TEMPLATE, WORDS, bound), "feed the dog no soup and the dog sleeps.")


def test_an_unknown_class_is_an_error():
    with pytest.raises(KeyError, match="colour"):
        expand("a {colour} dog", random.Random(0), WORDS)


def test_articles():
    assert [with_article(noun) for noun in ("owl", "dog", "honest man")] == [
        "an owl",
        "a dog",
        "an honest man",
    ]
