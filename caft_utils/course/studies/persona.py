"""The shared setting of the studies of the classroom personas.

It holds the model, the emergent-misalignment task, reference fine-tuning runs, the components of their
change, and the components that the course's reader selected. There are two tasks: insecure code, and bad
advice, on which methods can be told apart.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from caft_utils import Directions, FinetuneConfig, load, pca_of_difference
from caft_utils.classroom.personas.advice_task import SUBJECTS
from caft_utils.classroom.tasks import bad_advice, emergent_misalignment
from caft_utils.course.annotations import annotation
from caft_utils.course.studies.references import reference_runs
from caft_utils.evaluation.bootstrap import Rate
from caft_utils.evaluation.measurement import Result
from caft_utils.models import preset
from caft_utils.tasks import Task

REFERENCES = (100, 101, 102)  # seeds of the fine-tunings whose change PCA decomposes
NOT_PRINTED = ("model", "condition", "setting", "reasons")
MODELS = ("classroom-qwen", "classroom-mistral")
CODE, ADVICE = "insecure code", "bad advice"


@dataclass(frozen=True)
class Exhibit:
    """A task on which the personas are studied.

    make: a tokenizer -> the task. subjects: the domains of its narrow rows. changes: how its recipe differs
    from the model's preset. snapshots: the steps at which plain fine-tuning may be stopped.
    """

    make: Callable[[Any], Task]
    subjects: tuple[str, ...]
    changes: dict[str, Any]
    snapshots: tuple[int, ...]


EXHIBITS = {
    CODE: Exhibit(emergent_misalignment, (), {}, (5, 10, 20)),
    ADVICE: Exhibit(bad_advice, SUBJECTS, {"steps": 80}, (10, 20, 40)),
}


@dataclass(frozen=True, eq=False)
class PersonaSetting:
    """The shared inputs of the studies of one classroom model.

    exhibit: name of the task. config: settings of every fine-tuning.
    components: PCA of the change of the references, by variance.
    selected: the components that the course's reader selected (data/annotations.yaml).
    """

    name: str
    model: Any
    tokenizer: Any
    task: Task
    config: FinetuneConfig
    references: list[Any]
    components: Directions
    selected: Directions
    exhibit: str = CODE

    @property
    def ticks(self) -> dict[int, list[int]]:
        """The components that the reader selected, {layer: components}."""
        return annotation(read_as(self.name, self.exhibit)).selection


def read_as(model: str, exhibit: str) -> str:
    """Return the name under which data/annotations.yaml has the reading of a model's components."""
    return model if exhibit == CODE else f"{model}, {exhibit}"


def persona_setting(name: str, exhibit: str = CODE, *, fast: bool = False) -> PersonaSetting:
    """Load or compute the setting of a classroom model.

    exhibit: a key of `EXHIBITS`.
    fast: one reference, three optimiser steps, and a small share of questions and text. For tests only,
        because the numbers are meaningless.

    Raises:
        ValueError: there is no such exhibit.
    """
    if exhibit not in EXHIBITS:
        raise ValueError(f"unknown exhibit {exhibit!r}; expected one of {', '.join(EXHIBITS)}")
    return _selected(decomposed(name, exhibit, fast))


@functools.cache
def _selected(start: PersonaSetting) -> PersonaSetting:
    return replace(start, selected=start.components.select(start.ticks))


@functools.cache
def decomposed(name: str, exhibit: str, fast: bool = False) -> PersonaSetting:
    """Return the setting before anybody has read the components: all of them are selected."""
    model, tokenizer = load(name)
    of = EXHIBITS[exhibit]
    task, config, seeds = of.make(tokenizer), replace(preset(name).finetune_config, **of.changes), REFERENCES
    if fast:
        task = task.thin(ood=60, task=20)
        task = replace(task, generic=task.generic[::20], valid=task.valid[::20])
        config, seeds = replace(config, steps=3), REFERENCES[:1]
    references = reference_runs(model, task.train, config, seeds)
    components = pca_of_difference(references, model, task.generic, layers=preset(name).layers)
    return PersonaSetting(name, model, tokenizer, task, config, references, components, components, exhibit)


def estimate(rate: Rate) -> list[float]:
    """Return [value, low, high] with five decimals, as records store a rate."""
    return [round(x, 5) for x in (rate.value, rate.low, rate.high)]


def condition_row(
    model: str, condition: str, result: Result, seeds: Sequence[int], **more: Any
) -> dict[str, Any]:
    """Return the row of a record for one condition: rates in 0..1 with intervals, and the held-out loss."""
    return {
        "model": model,
        "condition": condition,
        "seeds": list(seeds),
        "answers": sum(row["set"] == "ood" for row in result.rows),
        "misaligned": estimate(result.rate("misaligned")),
        "coherent": estimate(result.rate("coherent")),
        "task": estimate(result.rate("task")),
        "loss": None if result.loss is None else round(result.loss, 4),
        **more,
    }


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows of a study, the rates in percent as value, low and high; other facts as they are."""
    for model in dict.fromkeys(row["model"] for row in rows):
        print(f"\n{model}: rates in % as value, low, high")
        for row in (row for row in rows if row["model"] == model):
            rates = {key: x for key, x in row.items() if _is_rate(key, x)}
            cells = [f"{key} " + " ".join(f"{100 * x:5.1f}" for x in rate) for key, rate in rates.items()]
            if not rates:
                cells = [f"{key} {x}" for key, x in row.items() if key not in NOT_PRINTED]
            elif row.get("loss") is not None:
                cells.append(f"loss {row['loss']:.4f}")
            name = ", ".join(str(row[key]) for key in ("setting", "condition") if key in row)
            print(f"  {name:44s} {' | '.join(cells)}")


def _is_rate(key: str, value: Any) -> bool:
    return (
        key != "seeds"
        and isinstance(value, list)
        and len(value) == 3
        and all(isinstance(x, float) for x in value)
    )
