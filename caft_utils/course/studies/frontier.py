"""The trade-off frontier: plain fine-tuning and CAFT at four learning rates and along training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from caft_utils import ablate, at_step, finetune, measure
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
    setting, rows = persona_setting(model), []
    for method in chosen_conditions(conditions, CONDITIONS):
        during = ablate(setting.selected) if method == "CAFT" else None
        for lr in rates:
            config, results = replace(setting.config, lr=lr), {step: [] for step in steps}
            for seed in seeds:
                tuned = finetune(
                    setting.model,
                    setting.task.train,
                    config,
                    seed=seed,
                    during=during,
                    snapshots=tuple(steps),
                )
                for step in steps:
                    snapshot = at_step(tuned, setting.model, step)
                    results[step].append(measure(snapshot, setting.task, seed=seed))
            for step, parts in results.items():
                name, point = f"{method}, lr {lr:g}, step {step}", {"lr": lr, "step": step, "curve": method}
                rows.append(condition_row(model, name, Result.merge(parts), seeds, **point))
    return rows
