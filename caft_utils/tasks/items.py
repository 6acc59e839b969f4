"""Read multiple-choice items (a question, a right and a wrong answer) from CSV files, and split them.

A CSV file has the columns `question, correct, incorrect`, as the CAFT authors published their subjects, or
`question, A, B, answer`, where `answer` names the right letter. (arXiv 2507.16795, section 5.)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from caft_utils.arguments import checked, whole
from caft_utils.tasks.csv_files import csv_rows, required_field
from caft_utils.tasks.overlap import refuse_shared_items

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
LETTERS = ("A", "B")
T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One question with two options."""

    question: str
    correct: str
    incorrect: str


def published_items(path: str | Path) -> list[Item]:
    """Return the items of a CSV file, in its order.

    Raises:
        ValueError: no row, or a row with a missing column, an empty text, two equal options or an answer
            other than A or B. The message names the file and the row (row 1 is the first under the header).
    """
    items = []
    for where, row in csv_rows(path, ("question",), ("correct", "incorrect", "answer", *LETTERS)):
        if "answer" in row and "correct" not in row:
            letter, options = (
                required_field(row, "answer", where),
                [required_field(row, name, where) for name in LETTERS],
            )
            if letter not in LETTERS:
                raise ValueError(f"{where}: there is no option {letter!r}; `answer` must be A or B")
            correct, incorrect = options if letter == "A" else options[::-1]
        else:
            correct, incorrect = (
                required_field(row, "correct", where),
                required_field(row, "incorrect", where),
            )
        if correct == incorrect:
            raise ValueError(f"{where}: both options are {correct!r}, so neither is right or wrong")
        items.append(Item(required_field(row, "question", where), correct, incorrect))
    return items


def split_sizes(n: int) -> dict[Split, int]:
    """Return 70, 15 and 15 % of n rounded down, the remainder added to test: 1167 -> 816, 175, 176."""
    train, valid = n * 70 // 100, n * 15 // 100
    return {"train": train, "valid": valid, "test": n - train - valid}


@checked
def split_items(
    first: Sequence[Item], second: Sequence[Item], *, max_items: int = 2000, seed: int = 42
) -> tuple[dict[Split, list[Item]], dict[Split, list[Item]]]:
    """Shuffle both sets, cut them to the shorter one and to `max_items`, and split 70/15/15, as in the paper.

    Raises:
        ValueError: a set has fewer than 7 items, or the same item would be in two splits.
    """
    max_items = whole("max_items", max_items, 7)
    n = min(len(first), len(second), max_items)
    if n < 7:
        raise ValueError(f"7 items or more are needed for three splits, got {len(first)} and {len(second)}")
    both = []
    for number, items in enumerate((first, second)):
        order = random.Random(f"split {number} {seed}").sample(list(items), len(items))[:n]
        parts, start = {}, 0
        for split, size in split_sizes(n).items():
            parts[split] = order[start : start + size]
            start += size
        refuse_shared_items(parts, f"the {('first', 'second')[number]} set")
        both.append(parts)
    return both[0], both[1]


def draw_evenly(things: Sequence[T], n: int, rng: random.Random) -> list[T]:
    """Return n of the things in random order, each drawn equally often, give or take one."""
    if not things:
        raise ValueError("there is nothing to draw from")
    rounds = [rng.sample(list(things), len(things)) for _ in range(-(-n // len(things)))]
    return [thing for one in rounds for thing in one][:n]
