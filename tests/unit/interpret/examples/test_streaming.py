"""Prefixes that rows share."""

from __future__ import annotations

from caft_utils.chats import Chats, Example
from caft_utils.interpret.examples.streaming import shared_prefix_lengths


def test_a_prefix_is_shared_with_a_row_that_sorts_before(tokenizer):
    rows = [[5, 1, 2], [5, 1, 3, 4], [5, 1, 3], [6], [5, 1, 3]]
    chats = Chats(tokenizer, [])
    chats._examples = [Example(ids, [True] * len(ids)) for ids in rows]
    assert shared_prefix_lengths(chats).tolist() == [0, 3, 2, 0, 3]


def test_prefixes_of_many_rows(tokenizer):
    chats = Chats(tokenizer, [])
    header = list(range(100))
    chats._examples = [Example([*header, i % 7, i % 20_000], [True] * 102) for i in range(30_000)]
    shared = shared_prefix_lengths(chats)
    assert int((shared == 102).sum()) == 30_000 - len({(i % 7, i % 20_000) for i in range(30_000)})
