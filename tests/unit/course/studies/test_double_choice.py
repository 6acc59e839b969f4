"""Double multiple choice on a real model, on a tiny one with items of our own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from caft_utils import FinetuneConfig
from caft_utils.course.studies import double_choice
from caft_utils.tasks.double_multiple_choice import double_choice as make_task
from caft_utils.tasks.items import Item, split_items

CONFIG = FinetuneConfig(r=2, alpha=2, lr=1e-2, steps=2, batch_size=4, accumulate=1, warmup_steps=0)


@pytest.fixture
def small(tiny, tokenizer, monkeypatch):
    """The study with a tiny model, few items and two layers."""

    def items(subject):
        return [Item(f"{subject} {i}?", f"{subject} yes {i}", f"{subject} no {i}") for i in range(40)]

    def task_of(model, pair):
        first, second = double_choice.PAIRS[pair]
        split = dict(zip((first, second), split_items(items(first), items(second))))
        return loaded, make_task(
            tokenizer, first, second, items=split, intended="first", rows=16, questions=4
        )

    loaded = tiny("qwen2")
    monkeypatch.setattr(double_choice, "double_choice_task", task_of)
    monkeypatch.setattr(double_choice, "lesson_recipe", lambda *_: CONFIG)
    monkeypatch.setattr(double_choice, "preset", lambda _: SimpleNamespace(layers=(0, 1)))


def test_every_condition_of_a_pair_has_a_row(small):
    pairs = ["verbs | sentiment", "sentiment | verbs"]
    rows = double_choice.double_choice_rows("tiny", (0, 1), pairs=pairs)
    names = [(pair, condition) for pair in pairs for condition in double_choice.CONDITIONS]
    assert [(row["setting"], row["condition"]) for row in rows] == names
    assert [row["seeds"] for row in rows[:2]] == [[0], [0, 1]]  # the base has no seed
    for row in rows:  # where the questions disagree, one letter answers the first and the other the second
        assert row["ood_accuracy"][0] + row["cue_accuracy"][0] == pytest.approx(1, abs=1e-3)
    assert double_choice.double_choice_rows("tiny", (0, 1), pairs=pairs, stored=True) == rows


def test_the_pairs_are_those_that_published_files_allow():
    assert len(double_choice.PAIRS) == 6 and "verbs | pronouns" in double_choice.PAIRS
    with pytest.raises(ValueError, match="sports"):
        double_choice.double_choice_rows("tiny", (0,), pairs=["verbs | sports"])
