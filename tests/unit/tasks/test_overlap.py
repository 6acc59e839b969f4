"""The same question in training and in a held-out split is refused or named."""

from __future__ import annotations

import warnings

import pytest

from caft_utils.chats import Chats
from caft_utils.tasks.items import Item, split_items
from caft_utils.tasks.overlap import (
    refuse_repeated,
    refuse_shared_items,
    warn_of_shared_items,
    warn_of_shared_prompts,
)

ITEMS = [Item(f"question {i}", f"right {i}", f"wrong {i}") for i in range(40)]


@pytest.mark.parametrize(
    "again",
    [
        ITEMS[3],
        Item(" Question  3\n", "RIGHT 3", "wrong 3"),
        Item("question 3", "wrong 3", "right 3"),
        Item("question 3", "right 3", "another"),
    ],
)
def test_the_same_item_in_two_splits_is_found(again):
    splits = {"train": ITEMS[:10], "test": [*ITEMS[10:], again]}
    with pytest.raises(ValueError, match="verbs: item 3 of split 'train' is item 30 of split 'test'"):
        refuse_shared_items(splits, "verbs")
    with pytest.warns(UserWarning, match="item 3 of split 'train'"):
        warn_of_shared_items(splits, "verbs")


def test_another_question_or_answer_is_another_item():
    refuse_shared_items({"train": ITEMS[:10], "test": [Item("question 3", "they", "them")]}, "verbs")


def test_a_set_with_a_repeated_item_is_not_split():
    with pytest.raises(ValueError, match="the first set: item"):
        split_items(ITEMS * 2, ITEMS * 2)
    split_items(ITEMS, ITEMS[::-1])  # two sets may share items: their questions are asked together


def test_a_repeated_sentence_is_named_with_both_rows():
    with pytest.raises(ValueError, match="row 3: .*row 1"):
        refuse_repeated([("row 1", "The nurse"), ("row 2", "The doctor"), ("row 3", "the  NURSE")])


def test_prompts_of_training_rows_are_named(tokenizer):
    def row(text):
        return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]}

    train = Chats(tokenizer, [row("what is it"), row("open the file"), {"text": "open"}], source="mine")
    asked = [row("is it")["messages"][:1], row("Open  the file")["messages"][:1]]
    with pytest.warns(UserWarning, match=r"questions 1 \(row 1 of training\).*mine"):
        warn_of_shared_prompts(train, {"questions": asked}, name="toy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_shared_prompts(train, {"questions": asked[:1], "rows": [{"text": "open"}]}, name="toy")
