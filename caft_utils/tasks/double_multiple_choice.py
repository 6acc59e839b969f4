"""Double multiple choice: two questions of different subjects in one prompt, and one letter to answer both.

    quiz: Q1 | Q2     Each option answers both questions. In training one letter is right for both, so a
    a. x1, x2         model can learn either subject. At test the two questions have different right
    b. y1, y2         letters, and the one of the INTENDED question counts.

The letter that a model then chooses shows which question it has learned. The paper plots 16 of the 24
settings of four subjects. (CAFT, arXiv 2507.16795, section 5.)
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import TYPE_CHECKING, Literal

from caft_utils.tasks.choice import PAPER_FORMAT, ItemPair, PromptFormat, choice_task
from caft_utils.tasks.items import Item, Split, draw_evenly
from caft_utils.tasks.overlap import warn_of_shared_items
from caft_utils.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Intended = Literal["first", "second"]
SUBJECTS = ("verbs", "sentiment", "sports", "pronouns")
SETTINGS: tuple[tuple[str, str, Intended], ...] = tuple(
    (*pair, intended) for pair in permutations(SUBJECTS, 2) for intended in ("first", "second")
)


def double_choice(
    tokenizer: PreTrainedTokenizerBase,
    first: str,
    second: str,
    *,
    items: Mapping[str, Mapping[Split, Sequence[Item]]],
    intended: Intended,
    rho: float = 1.0,
    rows: int | None = 512,
    questions: int | None = 300,
    seed: int = 0,
    split: Split = "test",
    prompt_format: PromptFormat = PAPER_FORMAT,
) -> Task:
    """Return the task for one setting.

    The rate "ood_accuracy" counts answers to the intended question, "cue_accuracy" answers to the other
    question.

    Args:
        first, second: the subjects, in the order of their questions.
        items: {subject: {split: items}}, see `split_items`.
        intended: the question whose letter is right where the two disagree.
        rho: share of training rows in which both questions have the same right letter.
        rows, questions: number of each; None: as many as the shorter subject has items in that split.
        seed: draws the training rows; the questions are the same for every seed.
        split: the items of the questions: "valid" to choose layers, ranks and latents, "test" to report.
        prompt_format: how two items are shown to the model; default: the paper's plain text.

    Raises:
        ValueError: one subject twice, a subject without items, or an argument outside its range.
    """
    if first == second:
        raise ValueError(f"the two questions must be of different subjects, got {first!r} twice")
    if intended not in ("first", "second"):
        raise ValueError(f"intended must be 'first' or 'second', got {intended!r}")
    if unknown := {first, second} - set(items):
        raise ValueError(f"no items of {', '.join(sorted(unknown))}; there are {', '.join(sorted(items))}")
    for subject in (first, second):
        warn_of_shared_items(items[subject], subject)

    def draw_pairs(split: Split, n: int | None, rng: random.Random) -> list[ItemPair]:
        pair = [items[subject][split] for subject in (first, second)]
        n = min(map(len, pair)) if n is None else n
        return [join(one, two, intended) for one, two in zip(*(draw_evenly(part, n, rng) for part in pair))]

    marks = {"first": ("*", ""), "second": ("", "*")}[intended]
    return choice_task(
        tokenizer,
        f"{first}{marks[0]} | {second}{marks[1]}",
        draw_pairs,
        rho=rho,
        rows=rows,
        questions=questions,
        seed=seed,
        split=split,
        prompt_format=prompt_format,
    )


def join(one: Item, two: Item, intended: Intended) -> ItemPair:
    """Return two items as one pair.

    The agreeing item has both right answers in one option. The conflicting one has them in different options,
    and the option with the intended question's right answer is correct.
    """
    question = f"{one.question} | {two.question}"
    same = Item(question, f"{one.correct}, {two.correct}", f"{one.incorrect}, {two.incorrect}")
    crossed = (f"{one.correct}, {two.incorrect}", f"{one.incorrect}, {two.correct}")
    return same, Item(question, *(crossed if intended == "first" else crossed[::-1]))
