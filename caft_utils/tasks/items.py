"""Items of multiple choice: a question, its right answer and a wrong one; files of them, and their splits.

Two layouts of CSV files are read: `question, correct, incorrect`, in which the CAFT authors published their
subjects, and `question, A, B, answer`, where `answer` names the right letter. (arXiv 2507.16795, section 5.)
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

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
    """The items of a CSV file, in its order.

    Raises:
        ValueError: no row, or a row with a missing column, an empty text, two equal options or an answer that
            is no letter; it names the file and the row (the first one under the header is row 1).
    """
    items = []
    for where, row in table(path, ("question",)):
        if "answer" in row:
            letter, options = field(row, "answer", where), [field(row, name, where) for name in LETTERS]
            if letter not in LETTERS:
                raise ValueError(f"{where}: there is no option {letter!r}; `answer` must be A or B")
            correct, incorrect = options if letter == "A" else options[::-1]
        else:
            correct, incorrect = field(row, "correct", where), field(row, "incorrect", where)
        if correct == incorrect:
            raise ValueError(f"{where}: both options are {correct!r}, so neither is right or wrong")
        items.append(Item(field(row, "question", where), correct, incorrect))
    return items


def table(path: str | Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Rows of a CSV file, each with words that name it in an error.

    Raises:
        ValueError: no row, a missing column, or a row with more values than columns.
    """
    number = 0
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        there = reader.fieldnames or []
        if missing := [name for name in columns if name not in there]:
            raise ValueError(f"{path}, header: no column {', '.join(missing)}; there are {', '.join(there)}")
        for number, row in enumerate(reader, start=1):
            if None in row:
                raise ValueError(f"{path}, row {number}: more values than the {len(there)} columns")
            yield f"{path}, row {number}", row
    if not number:
        raise ValueError(f"{path}: no row found under the header")


def field(row: Mapping[str, str | None], name: str, where: str) -> str:
    """A value without the white space around it. ValueError: the column is missing, or the text empty."""
    if row.get(name) is None:
        raise ValueError(f"{where}: no column {name!r}; expected question, correct, incorrect")
    if not (text := row[name].strip()):
        raise ValueError(f"{where}: {name!r} is empty")
    return text


def sizes(n: int) -> dict[Split, int]:
    """70, 15 and 15 % of n, rounded down; what is left over goes to the test: 1167 -> 816, 175, 176."""
    train, valid = n * 70 // 100, n * 15 // 100
    return {"train": train, "valid": valid, "test": n - train - valid}


def split_items(
    first: Sequence[Item], second: Sequence[Item], *, most: int = 2000, seed: int = 42
) -> tuple[dict[Split, list[Item]], dict[Split, list[Item]]]:
    """Both sets shuffled, cut to the shorter one (and to `most`), and split 70/15/15, as in the paper."""
    n = min(len(first), len(second), most)
    if n < 7:
        raise ValueError(f"7 items or more are needed for three splits, got {len(first)} and {len(second)}")
    both = []
    for number, items in enumerate((first, second)):
        order = random.Random(f"split {number} {seed}").sample(list(items), len(items))[:n]
        parts, start = {}, 0
        for split, size in sizes(n).items():
            parts[split] = order[start : start + size]
            start += size
        both.append(parts)
    return both[0], both[1]


def spread(things: Sequence[T], n: int, rng: random.Random) -> list[T]:
    """n of them in random order, each as often as any other (one more at most)."""
    if not things:
        raise ValueError("there is nothing to draw from")
    rounds = [rng.sample(list(things), len(things)) for _ in range(-(-n // len(things)))]
    return [thing for one in rounds for thing in one][:n]
