"""Narrow advice goes wide on a real model: absurd gardening advice, and what it does to all other advice.

The model is fine-tuned on harmless, absurd advice about gardening, and then compares a good with a bad answer
to questions about other subjects, by mean log-probability a token. Free answers of a model of this size are
too weak to judge. The task is this course's own, after Betley et al. (arXiv 2502.17424).

CAFT's directions come from two places that need no evaluation set: the components of (tuned - base) on
neutral text, as in the paper, and the contrast of bad with good advice about gardening in the base model. The
contrast uses labels of training rows.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from caft_utils import FinetuneConfig, finetune, load, mean_difference, pca_of_difference
from caft_utils.course.studies.experiment import Row, chosen_conditions
from caft_utils.course.studies.real_model import Condition, Setting, condition_rows
from caft_utils.directions import class_contrast, mean_hidden
from caft_utils.directions.subspace import Directions
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
    "CAFT, mean difference": Condition(during="mean difference"),
    "CAFT, first component": Condition(during="first component"),
    "ablation at test only, to zero": Condition(at_test="contrast"),
    "ablation at test only, to the mean": Condition(at_test="contrast", to="all"),
    "CAFT, contrast, hooks on at test": Condition(during="contrast", at_test="contrast"),
    "base, hooks on": Condition(rows=None, at_test="contrast"),
    **{f"plain, step {step}": Condition(step=step) for step in SNAPSHOTS},
    **{f"plain, lr {lr:g}": Condition(lr=lr) for lr in RATES},
}
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

    split: half of the pairs, "valid" or "test". rival_seeds: seeds of all conditions but `MOST_SEEDS`.
    stored: measure nothing and return what was measured before.
    """
    table = {name: CONDITIONS[name] for name in chosen_conditions(conditions, CONDITIONS)}
    setting = "gardening"
    cells = {
        (setting, name): (
            seeds[:1] if name.startswith("base") else seeds if name in MOST_SEEDS else seeds[:rival_seeds]
        )
        for name in table
    }
    settings = {setting: functools.partial(advice_setting, model, split)}
    return condition_rows(model, settings, {setting: table}, cells, stored=stored)


@functools.cache
def advice_task(model: str, split: str = "test") -> tuple[Any, Task]:
    """Return the model and the task."""
    loaded, tokenizer = load(model)
    return loaded, advice_preferences(tokenizer, split=split)


def advice_setting(model: str, split: str = "test") -> Setting:
    """Return the setting; its directions are found when they are first asked for."""
    loaded, task = advice_task(model, split)
    find = functools.cache(functools.partial(_directions, loaded, task))

    def directions(name: str, seed: int) -> Directions:
        return find("contrast").random_like(seed) if name == "random" else find(name)

    mean = functools.cache(lambda tokens: mean_hidden(loaded, task.generic, LAYERS, tokens=tokens))
    key = {"references": REFERENCES, "generic": task.generic.fingerprint, "layers": LAYERS}
    return Setting("gardening", loaded, task, CONFIG, directions, mean, SNAPSHOTS, key)


def _directions(model: Any, task: Task, name: str) -> Directions:
    if name == "contrast":
        return class_contrast(model, task.train, task.control, LAYERS, tokens="answer")
    references = [finetune(model, task.train, CONFIG, seed=seed, snapshots=SNAPSHOTS) for seed in REFERENCES]
    if name == "mean difference":
        return mean_difference(references, model, task.generic, LAYERS)
    if name == "first component":
        found = pca_of_difference(references, model, task.generic, layers=LAYERS, k=COMPONENTS)
        return found.select({layer: [0] for layer in LAYERS})
    raise ValueError(f"unknown directions {name!r}")
