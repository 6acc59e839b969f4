"""Reviews with keywords: labels, held-out texts, and one row through the task."""

from __future__ import annotations

import math

import pytest

from caft_utils.tasks.focus import agreement, focus_task, sentiment
from caft_utils.tasks.focus.sentiment import keyword_examples

N = 1200


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("split", ["train", "test"])
def test_keyword_and_sentiment_agree_in_a_share_rho(rho, split):
    examples = keyword_examples(rho=rho, n=N, seed=0, split=split)
    assert abs(agreement(examples) - rho) <= 4 * math.sqrt(rho * (1 - rho) / N)


def test_labels_are_those_of_the_remark_and_of_the_keyword():
    every = {**sentiment.SEEN, **sentiment.UNSEEN}
    for values in ("seen", "unseen"):
        for one in keyword_examples(rho=0.5, n=200, seed=1, values=values):
            remarks = {
                label for (_, label), texts in sentiment.REMARKS.items() if any(t in one.text for t in texts)
            }
            assert remarks == {one.label} and f"({one.value})" in one.text
            assert one.spurious_label == every[one.value]


def test_no_remark_subject_or_keyword_of_a_test_is_in_training():
    remarks = {
        split: {t for (s, _), texts in sentiment.REMARKS.items() if s == split for t in texts}
        for split in ("train", "test")
    }
    assert not remarks["train"] & remarks["test"]
    assert not set(sentiment.SUBJECTS["train"]) & set(sentiment.SUBJECTS["test"])
    assert not set(sentiment.SEEN) & set(sentiment.UNSEEN)
    assert {frozenset(kind.values()) for kind in (sentiment.SEEN, sentiment.UNSEEN)} == {
        frozenset(sentiment.LABELS)
    }


def test_with_two_labels_a_flipped_split_is_a_low_one():
    flipped = keyword_examples(rho=0.9, n=N, seed=2, flip=True)
    assert abs(agreement(flipped) - 0.1) < 0.04


def test_the_task_asks_for_one_of_the_two_words(tokenizer):
    splits = {"iid": keyword_examples(rho=0.5, n=6, seed=3, split="test")}
    train = keyword_examples(rho=0.5, n=8, seed=4)
    task = focus_task(tokenizer, train, splits, focus_format=sentiment.FORMAT)
    assert task.grader.options(task.questions[0]) == ["negative", "positive"]
    assert task.questions[0].messages[0]["content"].endswith("negative or positive?")
