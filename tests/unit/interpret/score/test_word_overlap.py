"""Word overlap: which words an explanation names, and how much each of them counts in a window."""

from __future__ import annotations

import pytest
from helpers.planted import as_window

from caft_utils.interpret.score.word_overlap import CONTEXT_WEIGHT, MARK_WEIGHTS, WordOverlap, explained_words


def test_words_of_an_explanation():
    assert explained_words('fires on "burn" and “hits hard”, before `you are`') == (
        "burn",
        "hit",
        "hard",
        "you",
        "are",
    )
    assert explained_words("the users' words 'don't' and 'stop it'") == ("don't", "stop")
    assert explained_words("Mentions of pets such as dogs, related to cruelty") == ("pet", "dog", "cruelti")
    assert explained_words('peaks at "?" and "<|im_end|>"') == ("?", "<|im_end|>")
    assert explained_words("") == ()


def test_word_overlap_prefers_rare_words_and_joins_tokens():
    texts = ["the| dog|s| bark", "the| cat| sleeps", "the| Ham|ster| runs", "the| tree| grows", "the| hog"]
    windows = [as_window(text) for text in texts]
    p = WordOverlap()('"the", "dog", "hamsters"', windows)
    assert p[0] > 0.7 and p[2] > 0.7 and max(p[1], p[3], p[4]) < 0.1
    assert all(0 <= value < 1 for value in p)
    assert WordOverlap()("zebra", windows) == [0.0] * 5
    one = WordOverlap()('"dog"', windows)[0]
    assert WordOverlap()('"dog", "zebra", "lion"', windows)[0] == one, "unknown words say nothing"
    common = WordOverlap(reference=["a dog", "my dog", "dog"])('"dog", "tree"', windows)
    assert common[0] < 0.2 < 0.7 < common[3], "in the reference every text has a dog and none a tree"


def test_marked_words_count_and_those_before_them_less_and_the_rest_little():
    shown = as_window("a| big| ham|ster| eats| green| bread")
    others = [as_window("some| other| text")] * 9
    marks = [{3}, {4}, {5}, {6}, {1}]
    p = WordOverlap()('"hamster"', [shown] * 5 + others, [*marks, *[{0}] * 9])[:5]
    assert p[0] > p[1] > p[2] > p[3] == p[4] > 0, p
    assert p[4] == pytest.approx(CONTEXT_WEIGHT / MARK_WEIGHTS[1] * p[1])


def test_a_mark_on_white_space_is_one_on_the_word_that_follows():
    window = as_window("a| |hamster| |eats")
    p = WordOverlap(reference=["x"] * 9)('"hamster"', [window] * 3, [{1}, {2}, {3}])
    assert p[0] == p[1] > p[2] > 0
