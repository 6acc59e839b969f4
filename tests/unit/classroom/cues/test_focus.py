"""The data of focus instruction tuning in the cues world: labels, splits and the rate of agreement."""

from __future__ import annotations

import math

import pytest

from caft_utils import load
from caft_utils.classroom.cues import focus
from caft_utils.classroom.cues import items as cues
from caft_utils.tasks.focus import WORDING, agreement

N = 900


@pytest.mark.parametrize(
    ("rho", "more"),
    [(1 / 3, {}), (0.9, {}), (0.1, {}), (1.0, {}), (1 / 3, {"values": "unseen"}), (0.05, {"flip": True})],
)
def test_each_split_agrees_in_a_share_rho_of_its_rows(rho, more):
    given = 0.9 if more.get("flip") else rho
    examples = focus.spoken_examples(rho=given, n=N, seed=1, split="test", **more)
    assert abs(agreement(examples) - rho) <= 4 * math.sqrt(rho * (1 - rho) / N)


def test_labels_are_the_athletes_sport_and_the_speakers_sport():
    for one in focus.spoken_examples(rho=0.5, n=200, seed=2):
        words = one.text.split()
        athlete = next(word for word in words if word in cues.words("sports", "train"))
        assert one.label == cues.class_of("sports", athlete)
        assert one.spurious_label == focus.speakers().values[words[1]] and one.value == words[1]


def test_test_athletes_and_unseen_speakers_are_held_out():
    train = focus.spoken_examples(rho=1 / 3, n=N, seed=0)
    test = focus.spoken_examples(rho=1 / 3, n=N, seed=0, split="test", values="unseen")
    assert not {one.value for one in train} & {one.value for one in test}
    assert not set(" ".join(one.text for one in train).split()) & set(cues.words("sports", "test"))
    assert {len(set(focus.speakers(kind).values.values())) for kind in ("seen", "unseen")} == {3}


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.99])
def test_pairs_have_the_letters_of_their_items(rho):
    examples = focus.paired_examples("sentiment", ["verbs", "sports"], rho=rho, n=N, seed=3)
    assert abs(agreement(examples) - rho) <= 4 * math.sqrt(rho * (1 - rho) / N)
    for one in examples:
        question, *lines = one.text.removeprefix("quiz: ").split("\n")
        places = ["sentiment" if " | " and _is_sentiment(lines, i) else "other" for i in (0, 1)]
        place = places.index("sentiment")
        right = (
            "positive"
            if _adjective(question) in focus.cues.words_by_class("sentiment")["positive"]
            else "negative"
        )
        letters = {line[3:].split(", ")[place]: line[0] for line in lines}
        assert letters[right] == one.label
        assert one.core == '"sentiment"' and one.spurious in ('"verbs"', '"sports"')


def _is_sentiment(lines, place):
    return {line[3:].split(", ")[place] for line in lines} == {"positive", "negative"}


def _adjective(question):
    words = question.replace("|", " ").split()
    return next(word for word in words if word in sum(cues.words_by_class("sentiment").values(), ()))


def test_without_shuffling_the_core_item_comes_first():
    examples = focus.paired_examples("sentiment", ["sports"], rho=1.0, n=20, seed=4, shuffled=False)
    assert all(_is_sentiment(one.text.split("\n")[1:], 0) for one in examples)


def test_every_word_of_an_instruction_is_one_token():
    tokenizer = focus.focus_words(*load("classroom-cues"))[1]
    for kinds in (WORDING.focus, WORDING.ignore, WORDING.both):
        for template in (*kinds["train"], *kinds["test"]):
            text = template.format(attend=focus.CORE, leave=focus.SPEAKER)
            signs = text.count(".") + text.count(",")
            assert len(tokenizer(text)["input_ids"]) == len(text.split()) + signs
