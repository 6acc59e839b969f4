"""Focus instruction tuning of a real model: sentiment of reviews, with planted keywords.

The model compares the two labels by log-probability. Splits and methods are those of the study on the
classroom, in a small size: a training takes some minutes on a CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from caft_utils import finetune, load, measure
from caft_utils.course.grid import run_grid
from caft_utils.course.studies.persona import estimate
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.evaluation.measurement import Result
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.models import fingerprint
from caft_utils.tasks.focus import WORDING, FocusExample, agreement, focus_rows, focus_task
from caft_utils.tasks.focus.sentiment import FORMAT, keyword_examples
from caft_utils.tasks.task import Task

SETTING, SHOTS = "keywords", 4
TRAIN_ROWS, QUESTIONS = 800, 20
CONDITIONS = ("zero-shot", "few-shot", "FIT", "SFT(y_focus)")
RECIPE = FinetuneConfig(
    r=16,
    alpha=16,
    rslora=False,
    lr=1e-3,
    steps=120,
    batch_size=16,
    accumulate=1,
    warmup_steps=8,
    weight_decay=0.0,
)


def focus_real_rows(
    model: str, seeds: Sequence[int], conditions: tuple[str, ...] | None = None, *, stored: bool = False
) -> list[Row]:
    """Measure focus accuracy by type and split and return a row per condition, seeds merged.

    stored: measure nothing and return what was measured before.
    """
    names = chosen_conditions(conditions, CONDITIONS)
    wanted = [
        (model, name, seed)
        for place, seed in enumerate(seeds)
        for name in names
        if place == 0 or not name.endswith("-shot")  # the base is the same for every seed
    ]
    grid = run_grid(wanted, measured_cell, key=cell_key, skip_missing=stored)
    print(f"{len(grid.results)} cells, {grid.total_seconds / 60:.0f} minutes of measuring in all runs")
    rows, shares = [], {name: round(agreement(of), 4) for name, of in splits_of_keywords().items()}
    for (_, name), result in grid.merged((0, 1)).items():
        there = [seed for _, other, seed in grid.results if other == name]
        row: Row = {"model": model, "setting": SETTING, "condition": name, "seeds": there}
        row["rates"] = {rate: estimate(result.rate(rate)) for rate in result.rates}
        rows.append(row | {"agreement": shares})
    return rows


def cell_key(model: str, name: str, seed: int) -> dict[str, Any]:
    """Return all that a cell depends on besides its name."""
    task = keyword_task(model, SHOTS if name == "few-shot" else 0)
    key = {"study": "focus real", "model": fingerprint(load_once(model)[0]), "task": task.fingerprint}
    return key | {"recipe": RECIPE.key(), "wording": WORDING.fingerprint}


def measured_cell(model: str, name: str, seed: int) -> Result:
    """Fine-tune by a method and ask all questions."""
    base, tokenizer = load_once(model)
    if name.endswith("-shot"):
        return measure(base, keyword_task(model, SHOTS if name == "few-shot" else 0), batch_size=16)
    train = keyword_examples(rho=0.5, n=TRAIN_ROWS, seed=seed)
    epochs = -(-RECIPE.total_steps(0) * RECIPE.batch_size // TRAIN_ROWS)
    rows = focus_rows(
        tokenizer, train, shown=name == "FIT", epochs=epochs, focus_format=FORMAT, seed=seed, source=name
    )
    return measure(finetune(base, rows, RECIPE, seed=seed), keyword_task(model), batch_size=16)


@functools.cache
def load_once(model: str) -> tuple[Any, Any]:
    """Load the model and its tokenizer."""
    return load(model)


@functools.cache
def splits_of_keywords() -> dict[str, list[FocusExample]]:
    """Return the test splits. With two labels, the flipped split is a low one with another draw."""
    drawn = functools.partial(keyword_examples, n=QUESTIONS, seed="questions", split="test")
    return {
        "iid": drawn(rho=0.5),
        "high": drawn(rho=0.9),
        "low": drawn(rho=0.1),
        "flipped": drawn(rho=0.9, flip=True),
        "unseen values": drawn(rho=0.5, values="unseen"),
    }


@functools.cache
def keyword_task(model: str, shots: int = 0) -> Task:
    """Return the questions of every split and type."""
    some = keyword_examples(rho=0.5, n=32, seed=0)
    more = {"shots": shots, "focus_format": FORMAT, "name": SETTING}
    return focus_task(load_once(model)[1], some, splits_of_keywords(), **more)
