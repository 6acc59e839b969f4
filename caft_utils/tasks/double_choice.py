"""Double multiple choice: two questions of different subjects in one prompt, and one letter to answer both.

    quiz: Q1 | Q2     Each option answers both questions. In training the two right answers stand under one
    a. x1, x2         letter, so either subject could be what is learnt; at test they stand under different
    b. y1, y2         letters, and what counts is the INTENDED question.

Which question a model follows then tells which one it has learnt. The paper plots 16 of the 24 settings of
four subjects. (CAFT, arXiv 2507.16795, section 5.)
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import TYPE_CHECKING, Literal

from caft_utils.tasks.choice import PAPER, ItemPair, PromptFormat, choice_task
from caft_utils.tasks.items import Item, Split, spread
from caft_utils.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Intended = Literal["first", "second"]
SUBJECTS = ("verbs", "sentiment", "sports", "pronouns")
SETTINGS: tuple[tuple[str, str, Intended], ...] = tuple(
    (*pair, intended) for pair in permutations(SUBJECTS, 2) for intended in ("first", "second")
)
# The settings of the paper's figures with its OOD accuracies in %: no intervention, CAFT with SAE latents,
# CAFT with principal components. Means of five seeds, hooks off; baselines were run on the first eight only.
PAPER_SETTINGS: dict[tuple[str, str, Intended], tuple[float, float, float]] = {
    ("verbs", "sentiment", "second"): (76.1, 94.7, 82.3),
    ("sports", "pronouns", "first"): (48.8, 60.4, 49.3),
    ("pronouns", "sports", "first"): (14.8, 99.1, 9.9),
    ("sentiment", "verbs", "second"): (11.3, 98.6, 71.3),
    ("sentiment", "sports", "first"): (1.4, 21.9, 42.5),
    ("verbs", "sports", "first"): (0.6, 99.0, 30.7),
    ("sentiment", "pronouns", "first"): (0.1, 15.5, 5.8),
    ("verbs", "pronouns", "first"): (0.0, 21.9, 0.0),
    ("sentiment", "verbs", "first"): (88.8, 90.6, 59.6),
    ("pronouns", "sports", "second"): (85.2, 96.8, 86.3),
    ("sports", "pronouns", "second"): (51.2, 99.5, 64.4),
    ("verbs", "sentiment", "first"): (23.9, 99.5, 75.9),
    ("sports", "sentiment", "second"): (4.7, 24.8, 23.5),
    ("sports", "verbs", "second"): (0.9, 98.4, 16.7),
    ("pronouns", "sentiment", "second"): (1.5, 49.4, 16.6),
    ("pronouns", "verbs", "second"): (0.1, 33.8, 0.1),
}


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
    prompt_format: PromptFormat = PAPER,
) -> Task:
    """The task for one setting. `Result.ood_accuracy` counts answers to the intended question,
    `flipped_accuracy` those to the other.

    Args:
        first, second: the subjects, in the order in which they are asked.
        intended: the question whose letter is right where the two disagree.
        rho: share of training rows in which both point to one letter; the right letter is the intended one.
        rows, questions: how many; None: as many as the shorter subject has items in that split.
        seed: draws the training rows; the questions are the same for every seed.
        split: the items that are asked about: "valid" to choose layers, ranks and latents, "test" to report.
        items: {subject: {split: items}}, see `split_items`.
        prompt_format: how two items are put to the model; default: the paper's plain text.
    """
    if first == second:
        raise ValueError(f"the two questions must be of different subjects, got {first!r} twice")
    if intended not in ("first", "second"):
        raise ValueError(f"intended must be 'first' or 'second', got {intended!r}")
    if unknown := {first, second} - set(items):
        raise ValueError(f"no items of {', '.join(sorted(unknown))}; there are {', '.join(sorted(items))}")

    def draw(split: Split, n: int | None, rng: random.Random) -> list[ItemPair]:
        pair = [items[subject][split] for subject in (first, second)]
        n = min(map(len, pair)) if n is None else n
        return [join(one, two, intended) for one, two in zip(*(spread(part, n, rng) for part in pair))]

    marks = {"first": ("*", ""), "second": ("", "*")}[intended]
    return choice_task(
        tokenizer,
        f"{first}{marks[0]} | {second}{marks[1]}",
        draw,
        rho=rho,
        rows=rows,
        questions=questions,
        seed=seed,
        split=split,
        prompt_format=prompt_format,
    )


def join(one: Item, two: Item, intended: Intended) -> ItemPair:
    """Two items as one: with their right answers in one option, and in different ones (intended is right)."""
    question = f"{one.question} | {two.question}"
    same = Item(question, f"{one.correct}, {two.correct}", f"{one.incorrect}, {two.incorrect}")
    crossed = (f"{one.correct}, {two.incorrect}", f"{one.incorrect}, {two.correct}")
    return same, Item(question, *(crossed if intended == "first" else crossed[::-1]))
