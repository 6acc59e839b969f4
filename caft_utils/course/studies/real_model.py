"""Measure a table of conditions. Shared by the studies of a real model.

A condition defines the rows that a model is fine-tuned on, and the directions that are ablated in training
and during measurement. The same table serves every task, so each task has the same rivals and controls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from caft_utils import at_step, finetune, measure
from caft_utils.course.grid import run_grid
from caft_utils.course.studies.conditions import Condition, Setting
from caft_utils.course.studies.operators import intervention
from caft_utils.course.studies.persona import estimate
from caft_utils.course.studies.rival_methods import trained_by_rival
from caft_utils.course.studies.study_rows import Row
from caft_utils.evaluation.measurement import Result
from caft_utils.models import fingerprint


def condition_rows(
    model: str,
    settings: Mapping[str, Callable[[], Setting]],
    conditions: Mapping[str, Mapping[str, Condition]],
    seeds: Mapping[tuple[str, str], Sequence[int]],
    *,
    stored: bool = False,
) -> list[Row]:
    """Measure the conditions of each setting and return one row each, seeds merged.

    Args:
        settings: {name: a function that returns the setting}. It is called when a cell has to be measured.
        conditions: {setting: {name: Condition}}.
        seeds: {(setting, condition): the seeds to measure}.
        stored: measure nothing and return what was measured before.
    """
    made: dict[str, Setting] = {}

    def setting(name: str) -> Setting:
        if name not in made:
            made[name] = settings[name]()
        return made[name]

    def key(name: str, condition: str, seed: int) -> dict[str, Any]:
        one = setting(name)
        given, of = {}, conditions[name][condition]
        if of.rival is not None:
            given["material"] = one.material().fingerprint
        if of.during in one.more_keys:
            given["more"] = one.more_keys[of.during]()
        return given | {
            "study": "real model",
            "model": fingerprint(one.model),
            "task": one.task.fingerprint,
            "rows": one.task.train.fingerprint,
            "recipe": one.config.key(),
            "directions": one.key,
            "condition": str(of),
        }

    cells = [
        (name, condition, seed)
        for name, table in conditions.items()
        for condition in table
        for seed in seeds[name, condition]
    ]
    cells.sort(key=lambda cell: cell[2])  # all conditions of one seed before the next
    grid = run_grid(
        cells, lambda n, c, s: measured(setting(n), conditions[n][c], s), key=key, skip_missing=stored
    )
    print(f"{len(grid.results)} cells, {grid.total_seconds / 60:.0f} minutes of measuring in all runs")
    rows = []
    for (name, condition), result in grid.merged((0, 1)).items():
        there = [s for n, c, s in grid.results if (n, c) == (name, condition)]
        row: Row = {"model": model, "setting": name, "condition": condition, "seeds": there}
        machines = {m for (n, c, _), m in grid.machines.items() if (n, c) == (name, condition)}
        if machines:
            row["measured_on"] = sorted(machines)
        rows.append(row | {rate: estimate(result.rate(rate)) for rate in result.rates})
    order = [(name, condition) for name, table in conditions.items() for condition in table]
    return sorted(rows, key=lambda row: order.index((row["setting"], row["condition"])))


def measured(setting: Setting, condition: Condition, seed: int) -> Result:
    """Fine-tune as a condition specifies, and ask the questions."""
    tuned = setting.model if condition.rows is None else _trained(setting, condition, seed)
    at_test = intervention(setting, condition, condition.at_test, seed)
    return measure(tuned, setting.task, seed=seed, during=at_test, method=setting.method)


def _trained(setting: Setting, condition: Condition, seed: int) -> Any:
    changes = {"lr": condition.lr, "steps": condition.steps}
    config = replace(setting.config, **{name: x for name, x in changes.items() if x is not None})
    if condition.rival is not None:
        return trained_by_rival(condition.rival, setting, config, condition.value, seed)
    plain = condition.during is None and condition.rows == "train"
    tuned = finetune(
        setting.model,
        getattr(setting.task, condition.rows),
        config,
        seed=seed,
        during=intervention(setting, condition, condition.during, seed),
        snapshots=setting.snapshots if plain else (),
    )
    return tuned if condition.step is None else at_step(tuned, setting.model, condition.step)
