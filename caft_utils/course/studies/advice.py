"""Narrow advice goes wide on a real model: absurd gardening advice, and its effect on all other advice.

The model is fine-tuned on harmless, absurd advice about gardening. It then compares a good with a bad answer
to questions about other subjects, by mean log-probability per token. Free answers of a model of this size are
too weak to judge. The task is this course's own, after Betley et al. (arXiv 2502.17424).

CAFT's directions come from two sources that need no evaluation set: the components of (tuned - base) on
neutral text, as in the paper, and the contrast of bad with good gardening advice in the base model. The
contrast uses labels of training rows.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from caft_utils import FinetuneConfig, load, mean_difference, pca_of_difference
from caft_utils.chats import Chats
from caft_utils.course.studies.advice_material import make_advice_material
from caft_utils.course.studies.conditions import Condition, Setting
from caft_utils.course.studies.real_model import condition_rows
from caft_utils.course.studies.references import reference_runs
from caft_utils.course.studies.rival_grids import families, grid_conditions, operator_conditions, rival_rows
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.directions import (
    Eraser,
    class_contrast,
    difference_scatter,
    leace,
    mean_hidden,
    random_with_variance,
)
from caft_utils.directions.subspace import Directions
from caft_utils.rivals import increments, random_vectors, steering_vectors
from caft_utils.tasks.advice import advice_preferences
from caft_utils.tasks.task import Task

LAYERS = tuple(range(10, 29))
COMPONENTS = 4
REFERENCES = (100, 101)
CONFIG = FinetuneConfig(
    r=16,
    alpha=16,
    rslora=False,
    lr=1e-3,
    steps=44,
    batch_size=8,
    accumulate=1,
    warmup_steps=8,
    weight_decay=0.0,
    schedule="linear",
    blocks=tuple(range(10, 30)),
)
SNAPSHOTS = (11, 22)
RATES = (2e-4,)
CONDITIONS = {
    "base": Condition(rows=None),
    "plain": Condition(),
    "good advice": Condition(rows="control"),
    "CAFT, contrast of gardening advice (labels)": Condition(during="contrast"),
    "random directions": Condition(during="random"),
    "orthogonal directions of matched variance": Condition(during="random with variance"),
    "CAFT, mean difference": Condition(during="mean difference"),
    "CAFT, first component": Condition(during="first component"),
    "ablation at test only, to zero": Condition(at_test="contrast"),
    "ablation at test only, to the mean": Condition(at_test="contrast", to="all"),
    "CAFT, contrast, hooks on at test": Condition(during="contrast", at_test="contrast"),
    "base, hooks on": Condition(rows=None, at_test="contrast"),
    **{f"plain, step {step}": Condition(step=step) for step in SNAPSHOTS},
    **{f"plain, lr {lr:g}": Condition(lr=lr) for lr in RATES},
}
FAMILIES = families("contrast", SNAPSHOTS, (1e-4, *RATES, 5e-4, 1e-3))
OPERATORS = operator_conditions("contrast", "absurd", to="good advice", value=0.0)
EVERY_CONDITION = {**grid_conditions(FAMILIES), **OPERATORS, **CONDITIONS}
TASK, HARM = "bad_in_domain", "bad_elsewhere"
MOST_SEEDS = ("plain", "good advice", "CAFT, contrast of gardening advice (labels)", "random directions")


def advice_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    split: str = "test",
    rival_seeds: int = 3,
    stored: bool = False,
) -> list[Row]:
    """Measure the conditions, seeds merged.

    conditions: names of `EVERY_CONDITION`; None: those of `CONDITIONS`.
    split: half of the pairs, "valid" or "test". rival_seeds: seeds of all conditions but `MOST_SEEDS`.
    stored: measure nothing and return what was measured before.
    """
    names = chosen_conditions(tuple(CONDITIONS) if conditions is None else conditions, EVERY_CONDITION)
    table = {name: EVERY_CONDITION[name] for name in names}
    setting = "gardening"
    cells = {
        (setting, name): (
            seeds[:1] if name.startswith("base") else seeds if name in MOST_SEEDS else seeds[:rival_seeds]
        )
        for name in table
    }
    settings = {setting: functools.partial(advice_setting, model, split)}
    return condition_rows(model, settings, {setting: table}, cells, stored=stored)


def advice_rival_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    stored: bool = False,
) -> list[Row]:
    """Measure every rival at all its settings on validation pairs, and the chosen one on test pairs.

    conditions: names of `FAMILIES`; None: all. stored: measure nothing, as in `advice_rows`.
    """
    table = {name: FAMILIES[name] for name in chosen_conditions(conditions, FAMILIES)}

    def rows_of(split: str, seeds: Sequence[int], names: Sequence[str]) -> list[Row]:
        return advice_rows(model, seeds, tuple(names), split=split, stored=stored)

    return rival_rows(rows_of, table, seeds, task=TASK, harm=HARM)


@functools.cache
def advice_task(model: str, split: str = "test") -> tuple[Any, Task]:
    """Return the model and the task."""
    loaded, tokenizer = load(model)
    return loaded, advice_preferences(tokenizer, split=split)


def advice_setting(model: str, split: str = "test") -> Setting:
    """Return the setting. Its directions are computed on first use."""
    loaded, task = advice_task(model, split)
    find = functools.cache(functools.partial(_directions, loaded, task))

    def directions(name: str, seed: int) -> Directions:
        if name == "random with variance":
            return random_with_variance(find("contrast"), scatter(), seed=seed)
        return find("contrast").random_like(seed) if name == "random" else find(name)

    @functools.cache
    def scatter() -> dict[int, Any]:
        return difference_scatter(_references(loaded, task), loaded, task.train, LAYERS, tokens="answer")

    def vectors(name: str, seed: int) -> dict[int, Any]:
        found = steering_vectors(find("contrast"))
        if name == "absurd":
            return found
        return random_vectors(increments(found), seed) if name == "random trait" else increments(found)

    @functools.cache
    def mean(tokens: str) -> dict[int, Any]:
        if tokens == "good advice":
            return mean_hidden(loaded, task.control, LAYERS, tokens="answer")
        return mean_hidden(loaded, task.generic, LAYERS, tokens=tokens)

    def eraser(name: str) -> Eraser:
        both = Chats(task.train.tokenizer, [*task.train.rows, *task.control.rows], source="gardening advice")
        labels = ["absurd"] * len(task.train) + ["good"] * len(task.control)
        return leace(loaded, both, labels, LAYERS, tokens="answer")

    key = {"references": REFERENCES, "generic": task.generic.fingerprint, "layers": LAYERS}
    material = functools.partial(make_advice_material, task.train.tokenizer)
    more = {"vectors": vectors, "eraser": functools.cache(eraser), "material": functools.cache(material)}
    return Setting("gardening", loaded, task, CONFIG, directions, mean, SNAPSHOTS, key, **more)


def _references(model: Any, task: Task) -> list[Any]:
    """Return the plain fine-tuning runs whose change is decomposed."""
    return reference_runs(model, task.train, CONFIG, REFERENCES, SNAPSHOTS)


def _directions(model: Any, task: Task, name: str) -> Directions:
    if name == "contrast":
        return class_contrast(model, task.train, task.control, LAYERS, tokens="answer")
    references = _references(model, task)
    if name == "mean difference":
        return mean_difference(references, model, task.generic, LAYERS)
    if name == "first component":
        found = pca_of_difference(references, model, task.generic, layers=LAYERS, k=COMPONENTS)
        return found.select({layer: [0] for layer in LAYERS})
    raise ValueError(f"unknown directions {name!r}")
