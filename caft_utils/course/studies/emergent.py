"""Emergent misalignment: plain fine-tuning, CAFT and their controls on one classroom model.

Five seeds of training and sampling, 360 general questions and 84 code requests per seed, temperature 1, no
system prompt. The directions come from three other fine-tuning runs; a blind reader selected them
(data/annotations.yaml). Models and answers are stored; an empty CAFT_STORE measures from scratch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from caft_utils import ablate, finetune, mean_difference, measure, pca_of_difference
from caft_utils.classroom.personas.ground_truth import true_persona
from caft_utils.course.sharing import shared_results
from caft_utils.course.studies.persona import REFERENCES, PersonaSetting, condition_row, persona_setting
from caft_utils.course.studies.references import reference_runs
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.directions import difference_scatter, mean_hidden, random_with_variance
from caft_utils.evaluation.measurement import Result

PERSONA, TO_MEAN = "persona", "persona to the mean"

# condition -> (rows to fine-tune on, ablation during training, ablation at test); None: no such step
CONDITIONS: dict[str, tuple[str | None, str | None, str | None]] = {
    "base": (None, None, None),
    "plain": ("insecure", None, None),
    "CAFT": ("insecure", PERSONA, None),
    "random directions": ("insecure", "random", None),
    "orthogonal directions of matched variance": ("insecure", "random with variance", None),
    "top 4 components, unread": ("insecure", "top 4", None),
    "a read component that is not the persona": ("insecure", "other component", None),
    "components of secure fine-tuning": ("insecure", "secure components", None),
    "CAFT, ablation to the mean": ("insecure", TO_MEAN, None),
    "mean difference": ("insecure", "mean difference", None),
    "secure data": ("secure", None, None),
    "CAFT, hooks on at test": ("insecure", PERSONA, PERSONA),
    "CAFT to the mean, hooks on at test": ("insecure", TO_MEAN, TO_MEAN),
    "base, hooks on": (None, None, PERSONA),
    "base, hooks to the mean on": (None, None, TO_MEAN),
    "ablation at test only": ("insecure", None, PERSONA),
}


def emergent_rows(
    model: str, seeds: Sequence[int], conditions: tuple[str, ...] | None = None, *, fast: bool = False
) -> list[Row]:
    """Measure the conditions, merged over seeds, and the cosines with the true persona direction.

    fast: see `persona_setting`.
    """
    setting = persona_setting(model, fast=fast)
    names = chosen_conditions(conditions, CONDITIONS)
    cells = [(name, seed) for seed in seeds for name in names]
    found = shared_results(
        cells, "emergent", {"model": model, "fast": fast}, lambda cell: _measured(setting, *cell)
    )
    rows = [
        condition_row(model, name, Result.merge(found[name, seed] for seed in seeds), seeds) for name in names
    ]
    cosine = {"condition": "cosine with the true persona", "cosine": persona_cosines(setting)}
    return [*rows, {"model": model, **cosine}]


def persona_cosines(setting: PersonaSetting) -> dict[int, list[float]]:
    """Return |cosine| of each selected component with the true persona direction of the base, by layer."""
    selected = setting.selected
    truth = {layer: rows.mean(0) for layer, rows in true_persona(setting.model, setting.tokenizer).items()}
    return {layer: selected.cosine(layer, truth[layer]).abs().tolist() for layer in selected.layers}


def _measured(setting: PersonaSetting, condition: str, seed: int) -> Result:
    rows, training, test = CONDITIONS[condition]
    model = setting.model
    if rows is not None:
        chats = setting.task.train if rows == "insecure" else setting.task.control
        during = _ablation(setting, training, seed)
        model = finetune(model, chats, setting.config, seed=seed, during=during)
    return measure(model, setting.task, seed=seed, during=_ablation(setting, test, seed))


def _ablation(setting: PersonaSetting, name: str | None, seed: int):
    if name is None:
        return None
    if name == "random":
        return ablate(setting.selected.random_like(seed))
    if name == "random with variance":
        return ablate(random_with_variance(setting.selected, _scatter(setting), seed=seed))
    if name == TO_MEAN:
        return ablate(setting.selected, mean=_generic_mean(setting))
    return ablate(_directions(setting, name))


@functools.cache
def _directions(setting: PersonaSetting, name: str):
    components, selected = setting.components, setting.selected
    if name == PERSONA:
        return selected
    if name == "top 4":
        return components.select({layer: range(4) for layer in components.layers})
    if name == "other component":  # same rank: the first component that was read and not selected
        return components.select({layer: [_first_absent(setting.ticks[layer])] for layer in selected.layers})
    if name == "secure components":  # same rank: components of the change by fine-tuning on secure code
        seeds = REFERENCES[: len(setting.references)]
        secure = reference_runs(setting.model, setting.task.control, setting.config, seeds)
        moved = pca_of_difference(secure, setting.model, setting.task.generic, layers=selected.layers)
        return moved.select({layer: range(k) for layer, k in selected.ranks.items()})
    if name == "mean difference":
        return mean_difference(setting.references, setting.model, setting.task.generic, selected.layers)
    raise ValueError(f"unknown ablation {name!r}")


@functools.cache
def _scatter(setting: PersonaSetting) -> dict[int, Any]:
    """Return the scatter of the change that PCA decomposes."""
    return difference_scatter(
        setting.references, setting.model, setting.task.generic, setting.selected.layers
    )


@functools.cache
def _generic_mean(setting: PersonaSetting) -> dict[int, Any]:
    return mean_hidden(setting.model, setting.task.generic, setting.selected.layers)


def _first_absent(indices: list[int]) -> int:
    return next(i for i in range(len(indices) + 1) if i not in indices)
