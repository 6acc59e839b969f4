"""What the studies of a real model share: a table of conditions, and how one of them is measured.

A condition says what a model is fine-tuned on, what is ablated while it trains, and what while it is
measured. The same table serves every task, so each task shows the same rivals and controls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from caft_utils import ablate, at_step, finetune, measure
from caft_utils.course.grid import run_grid
from caft_utils.course.studies.experiment import Row
from caft_utils.course.studies.persona import estimate
from caft_utils.directions.subspace import Directions
from caft_utils.evaluation.measurement import Result
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.models import fingerprint
from caft_utils.tasks import Task


@dataclass(frozen=True)
class Condition:
    """One row of a table: how a model is made and how it is measured.

    Attributes:
        rows: "train", "control" (rows without the concept), or None for the base model.
        during, at_test: names of the directions that are ablated in training and while it is measured.
        to: what is ablated becomes "zero", or the base model's mean over the tokens that are named here.
        step, lr: stop at this step; train at this learning rate instead of the recipe's.
    """

    rows: str | None = "train"
    during: str | None = None
    at_test: str | None = None
    to: str = "zero"
    step: int | None = None
    lr: float | None = None


@dataclass(frozen=True, eq=False)
class Setting:
    """What the cells of one task and recipe start from.

    Attributes:
        directions: (name, seed) -> the directions of that name; `seed` matters for random ones only.
        mean: name of tokens -> {layer: [d]}, the base model's mean hidden state over them.
        snapshots: steps at which every plain run keeps its weights.
        key: what the directions depend on besides the model, the task and the recipe.
    """

    name: str
    model: Any
    task: Task
    config: FinetuneConfig
    directions: Callable[[str, int], Directions]
    mean: Callable[[str], Mapping[int, Any]]
    snapshots: tuple[int, ...] = ()
    key: Any = None


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
        settings: {name: a function that returns the setting}, called when a cell of it has to be measured.
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
        return {
            "study": "real model",
            "model": fingerprint(one.model),
            "task": one.task.fingerprint,
            "rows": one.task.train.fingerprint,
            "recipe": one.config.key(),
            "directions": one.key,
            "condition": str(conditions[name][condition]),
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
    """Fine-tune as a condition says, and ask the questions by log-probability."""
    tuned, base = setting.model, setting.model
    if condition.rows is not None:
        config = setting.config if condition.lr is None else replace(setting.config, lr=condition.lr)
        during = _ablation(setting, condition.during, seed, condition.to)
        plain = condition.during is None and condition.rows == "train"
        tuned = finetune(
            base,
            getattr(setting.task, condition.rows),
            config,
            seed=seed,
            during=during,
            snapshots=setting.snapshots if plain else (),
        )
        if condition.step is not None:
            tuned = at_step(tuned, base, condition.step)
    at_test = _ablation(setting, condition.at_test, seed, condition.to)
    return measure(tuned, setting.task, seed=seed, during=at_test, method="logprob")


def _ablation(setting: Setting, name: str | None, seed: int, to: str) -> Any:
    if name is None:
        return None
    found = setting.directions(name, seed)
    if to == "zero":
        return ablate(found)
    means = setting.mean(to)
    return ablate(found, mean={layer: means[layer] for layer in found.layers})
