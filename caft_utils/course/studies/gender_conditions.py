"""Conditions of the gender study: the conditions of its record, the operators, and the rivals' grids."""

from __future__ import annotations

from collections.abc import Sequence

from caft_utils.course.studies.conditions import Condition
from caft_utils.course.studies.rival_grids import (
    CAFT_RATES,
    NOTHING_TOLD,
    UNREAD_TOLD,
    Family,
    families,
    grid_conditions,
    operator_conditions,
)
from caft_utils.rivals import feature_distance

SNAPSHOTS = (9, 18, 36)
RATES = (1e-4, 3e-4, 5e-4)
BOTH_RATES = RATES[1:]  # those at which CAFT is measured as well, besides the recipe's

CONDITIONS = {
    "base": Condition(rows=None),
    "plain": Condition(),
    "CAFT, components read blind": Condition(during="read"),
    "random directions": Condition(during="random"),
    "orthogonal directions of matched variance": Condition(during="random with variance"),
    "top components, unread": Condition(during="top"),
    "first component of every block, unread": Condition(during="first"),
    "components read as case": Condition(during="case"),
    "CAFT, SAE latents read blind": Condition(during="latents"),
    "top SAE latents, unread": Condition(during="top latents"),
    "random directions like the SAE latents": Condition(during="random latents"),
    "mean difference": Condition(during="mean difference"),
    "class means (labels)": Condition(during="class means"),
    "CAFT, components by labels": Condition(during="labels"),
    "CAFT, hooks on at test": Condition(during="read", at_test="read"),
    "ablation at test only, to zero": Condition(at_test="read"),
    "ablation at test only, to the mean": Condition(at_test="read", to="all"),
    "ablation at test only, to the mean of last prompt tokens": Condition(at_test="read", to="last_prompt"),
    "base, hooks on": Condition(rows=None, at_test="read"),
    "data without the cue": Condition(rows="control"),
    **{f"plain, step {step}": Condition(step=step) for step in SNAPSHOTS},
    **{f"plain, lr {lr:g}": Condition(lr=lr) for lr in RATES},
    **{f"CAFT, lr {lr:g}": Condition(during="read", lr=lr) for lr in BOTH_RATES},
}

# Of the four weights that every study tries the largest (100) was best on validation, so here are two more.
LARGER = {
    f"feature distance {weight:g}": Condition(rival="feature distance", value=weight) for weight in (1e3, 1e4)
}
# Controls of "CAFT, lr": other directions at each of its learning rates.
OTHER_DIRECTIONS = {
    "top components, unread": ("top", UNREAD_TOLD),
    "random directions": ("random", NOTHING_TOLD),
}
FAMILIES = {
    **families("read", SNAPSHOTS, (*RATES, 1e-3, 2e-3)),
    "feature distance, larger weights": Family(LARGER, feature_distance.TOLD),
    **{
        f"{name}, lr": Family(
            {f"{name}, lr {lr:g}": Condition(during=directions, lr=lr) for lr in CAFT_RATES}, told
        )
        for name, (directions, told) in OTHER_DIRECTIONS.items()
    },
}
OPERATORS = operator_conditions("read", "gender", to="female", value=0.5)
EVERY_CONDITION = {**grid_conditions(FAMILIES), **OPERATORS, **CONDITIONS}
TASK, HARM = "task_accuracy", "cue_accuracy"

MOST_SEEDS = ("plain", "CAFT, components read blind", "random directions")


def condition_seeds(name: str, seeds: Sequence[int], rival_seeds: int) -> Sequence[int]:
    """Return the seeds of a condition: only one for the base model, because its answers depend on no seed."""
    if name.startswith("base"):
        return seeds[:1]
    return seeds if name in MOST_SEEDS else seeds[:rival_seeds]
