"""Double multiple choice on a real model, with the published items: which of two questions does it learn?

Each prompt has two questions of different subjects, and one letter answers both. After training, the model
answers rows on which the two disagree. The order of the questions and the subjects are varied: every ordered
pair of the published subjects is a setting. `ood_accuracy` counts answers to the first question and
`cue_accuracy` those to the second, so one fine-tuning covers both of the paper's settings of a pair. (CAFT,
arXiv 2507.16795, section 5.)

Nobody has read the components of these settings. The directions are the first component of the change at
every block, read where the answer is formed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import permutations
from typing import Any

from caft_utils import load, pca_of_difference
from caft_utils.course.lessons import lesson_recipe, lesson_task
from caft_utils.course.studies.conditions import Condition, Setting
from caft_utils.course.studies.real_model import condition_rows
from caft_utils.course.studies.references import reference_runs
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.directions.subspace import Directions
from caft_utils.models import preset
from caft_utils.tasks.task import Task

SUBJECTS = ("verbs", "sentiment", "pronouns")  # the published sets that have no athletes
PAIRS = {f"{first} | {second}": (first, second) for first, second in permutations(SUBJECTS, 2)}
CONDITIONS = {
    "base": Condition(rows=None),
    "plain": Condition(),
    "data where only the first question decides": Condition(rows="control"),
    "first component of every block, unread": Condition(during="first"),
    "random directions": Condition(during="random"),
}
REFERENCES = (100,)
READ_ROWS = 200  # training rows on which the components are found
QUESTIONS = 120


def double_choice_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    pairs: Sequence[str] | None = None,
    stored: bool = False,
) -> list[Row]:
    """Measure the conditions for each pair of subjects, seeds merged.

    conditions: names of `CONDITIONS`; None: all. pairs: keys of `PAIRS`; None: all.
    stored: measure nothing and return what was measured before.
    """
    table = {name: CONDITIONS[name] for name in chosen_conditions(conditions, CONDITIONS)}
    names = chosen_conditions(None if pairs is None else tuple(pairs), PAIRS)
    cells = {(pair, name): seeds[:1] if name == "base" else seeds for pair in names for name in table}
    settings = {pair: functools.partial(double_choice_setting, model, pair) for pair in names}
    return condition_rows(model, settings, dict.fromkeys(names, table), cells, stored=stored)


@functools.cache
def double_choice_task(model: str, pair: str) -> tuple[Any, Task]:
    """Return the model and the task of a pair; the intended question is the first."""
    loaded, tokenizer = load(model)
    first, second = PAIRS[pair]
    subjects = {"first": first, "second": second, "intended": "first"}
    return loaded, lesson_task("double choice", model, tokenizer, **subjects, questions=QUESTIONS)


def double_choice_setting(model: str, pair: str) -> Setting:
    """Return the setting of a pair. Its directions are computed on first use."""
    loaded, task = double_choice_task(model, pair)
    config, layers = lesson_recipe("double choice", model), preset(model).layers
    rows = task.train[:READ_ROWS]

    @functools.cache
    def first() -> Directions:
        tuned = reference_runs(loaded, task.train, config, REFERENCES)
        return pca_of_difference(tuned, loaded, rows, layers=layers, k=1, tokens="last_prompt")

    def directions(name: str, seed: int) -> Directions:
        return first().random_like(seed) if name == "random" else first()

    def mean(tokens: str) -> Any:
        raise ValueError(f"no condition of this study ablates to a mean, got {tokens!r}")

    key = {"references": REFERENCES, "rows": rows.fingerprint, "layers": layers}
    return Setting(pair, loaded, task, config, directions, mean, key=key)
