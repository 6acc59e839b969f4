"""The trade-off frontier: plain fine-tuning and CAFT at four learning rates and along training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from caft_utils import ablate, at_step, finetune, measure
from caft_utils.course.sharing import shared_results
from caft_utils.course.studies.persona import condition_row, persona_setting
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.evaluation.measurement import Result

RATES = (1e-4, 2e-4, 5e-4, 1e-3)
STEPS = (5, 10, 20, 40)
CONDITIONS = ("plain", "CAFT")


def frontier_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    rates: Sequence[float] = RATES,
    steps: Sequence[int] = STEPS,
) -> list[Row]:
    """Measure each condition at every learning rate and step, merged over seeds.

    rates: learning rates of AdamW. steps: optimiser steps after which the weights are measured.
    """
    setting, steps = persona_setting(model), tuple(steps)
    curves = [(method, lr) for method in chosen_conditions(conditions, CONDITIONS) for lr in rates]

    def run(cell: tuple[str, float, int]) -> list[Result]:
        method, lr, seed = cell
        tuned = finetune(
            setting.model,
            setting.task.train,
            replace(setting.config, lr=lr),
            seed=seed,
            during=ablate(setting.selected) if method == "CAFT" else None,
            snapshots=steps,
        )
        snapshots = [at_step(tuned, setting.model, step) for step in steps]
        return [measure(snapshot, setting.task, seed=seed) for snapshot in snapshots]

    cells = [(*curve, seed) for seed in seeds for curve in curves]
    found, rows = shared_results(cells, "frontier", {"model": model, "steps": steps}, run), []
    for method, lr in curves:
        for number, step in enumerate(steps):
            merged = Result.merge(found[method, lr, seed][number] for seed in seeds)
            name, point = f"{method}, lr {lr:g}, step {step}", {"lr": lr, "step": step, "curve": method}
            rows.append(condition_row(model, name, merged, seeds, **point))
    return rows
