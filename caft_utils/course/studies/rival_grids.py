"""The rivals of a real model's study: for each a grid of one setting, and the rule that chooses from it.

Every family of conditions gets the same effort: each of its settings is measured once, with seed 0, on
validation questions. One rule chooses: the least harm among the settings whose task score is not below the
interval of plain fine-tuning's. Only the chosen setting is measured on test questions, with all seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from caft_utils.course.studies.conditions import Condition
from caft_utils.course.studies.experiment import Row
from caft_utils.rivals import (
    at_test_time,
    early_stopping,
    feature_distance,
    inoculation_adapter,
    inoculation_prompt,
    interleaving,
    kl_to_base,
    preventative_steering,
)
from caft_utils.rivals.told import Told

PLAIN = "plain"
STRENGTHS = (0.25, 0.5, 1.0, 2.0)
TRAIT_STEPS = (9, 18, 36)
CAFT_TOLD = Told("directions, found without labels or with them, as the row says", "what finding them costs")


@dataclass(frozen=True)
class Family:
    """Conditions that differ in one setting: value -> Condition, the values to try, and what it was told."""

    condition: Callable[[float], Condition]
    values: tuple[float, ...]
    told: Told


def families(caft: str, steps: Sequence[int], rates: Sequence[float]) -> dict[str, Family]:
    """Return every family by name.

    Args:
        caft: name of the directions that CAFT ablates.
        steps, rates: where plain fine-tuning is stopped, and its other learning rates.
    """

    def rival(name: str, values: Sequence[float], told: Told) -> dict[str, Family]:
        return {name: Family(lambda value: Condition(rival=name, value=value), tuple(values), told)}

    def steered(**names: str) -> Callable[[float], Condition]:
        return lambda value: Condition(operator="steer", value=value, **names)

    against = tuple(-value for value in STRENGTHS)
    steering = preventative_steering
    return {
        "CAFT, lr": Family(lambda lr: Condition(during=caft, lr=lr), (3e-4, 5e-4, 2e-3), CAFT_TOLD),
        "plain, step": Family(lambda step: Condition(step=int(step)), tuple(steps), early_stopping.TOLD),
        "plain, lr": Family(lambda lr: Condition(lr=lr), tuple(rates), early_stopping.TOLD),
        "preventative steering": Family(steered(during="trait"), STRENGTHS, steering.TOLD),
        "steering by a random vector": Family(
            steered(during="random trait"), STRENGTHS, steering.CONTROL_TOLD
        ),
        "steering against the trait": Family(steered(during="trait"), against, steering.TOLD),
        "steering at test": Family(steered(at_test="trait"), against, at_test_time.STEERING_TOLD),
        **rival("inoculation prompt", range(4), inoculation_prompt.TOLD),
        **rival("irrelevant prompt", range(4), inoculation_prompt.CONTROL_TOLD),
        **rival("inoculation adapter", TRAIT_STEPS, inoculation_adapter.TOLD),
        **rival("random adapter", TRAIT_STEPS, inoculation_adapter.CONTROL_TOLD),
        **rival("KL to the base", (0.03, 0.1, 0.3, 1.0), kl_to_base.TOLD),
        **rival("KL on everyday text", (0.1, 0.3, 1.0, 3.0), kl_to_base.OTHER_TEXT_TOLD),
        **rival("feature distance", (0.1, 1.0, 10.0, 100.0), feature_distance.TOLD),
        **rival("interleaved everyday rows", (0.05, 0.1, 0.2, 0.4), interleaving.TOLD),
        **rival("interleaved counterexamples", (0.02, 0.05, 0.1, 0.2), interleaving.COUNTEREXAMPLES_TOLD),
    }


def grid_conditions(table: Mapping[str, Family]) -> dict[str, Condition]:
    """Return the conditions of all families by name, such as "KL to the base 0.1"."""
    return {
        name: family.condition(value)
        for title, family in table.items()
        for name, value in zip(names_of(title, family), family.values)
    }


def names_of(title: str, family: Family) -> list[str]:
    """Return the names of the conditions of a family."""
    return [f"{title} {value:g}" for value in family.values]


def operator_conditions(caft: str, concept: str, *, to: str, value: float) -> dict[str, Condition]:
    """Return the conditions of the operators, which have nothing to tune.

    Args:
        caft: name of the directions that CAFT ablates. concept: name of the concept with labels.
        to, value: the mean that affine editing starts from, and how far it goes to the other one.
    """
    affine = {"operator": "affine", "to": to, "value": value}
    return {
        "CAFT to the mean": Condition(during=caft, to="all"),
        "CAFT to the mean, hooks on at test": Condition(during=caft, at_test=caft, to="all"),
        "activation only": Condition(during=caft, operator="activation only"),
        "activation only, hooks on at test": Condition(during=caft, at_test=caft, operator="activation only"),
        "gradient only": Condition(during=caft, operator="gradient only"),
        "random directions, activation only": Condition(during="random", operator="activation only"),
        "random directions, gradient only": Condition(during="random", operator="gradient only"),
        "affine editing (labels)": Condition(during=concept, **affine),
        "affine editing, hooks on at test": Condition(during=concept, at_test=concept, **affine),
        "affine editing at test only": Condition(at_test=concept, **affine),
        "LEACE (labels)": Condition(during=concept, operator="erase"),
        "LEACE, hooks on at test": Condition(during=concept, at_test=concept, operator="erase"),
        "LEACE at test only": Condition(at_test=concept, operator="erase"),
        "base, hooks to the mean on": Condition(rows=None, at_test=caft, to="all"),
        "base, affine editing on": Condition(rows=None, at_test=concept, **affine),
        "base, LEACE on": Condition(rows=None, at_test=concept, operator="erase"),
    }


def choose(rows: Sequence[Row], table: Mapping[str, Family], *, task: str, harm: str) -> dict[str, str]:
    """Return the chosen condition of each family by the rule of this module.

    If no setting of a family learns the task, it is the one with the highest task score; its row then shows
    that. Equal harm is decided by the task score, then by the order of the values.

    Args:
        rows: one row for each condition, that of "plain" among them, measured on validation questions.
        task: the rate that should be high. harm: the rate that should be low.

    Raises:
        ValueError: a condition of a family, or "plain", has no row.
    """
    by_name = {row["condition"]: row for row in rows}
    wanted = [PLAIN, *(name for title, family in table.items() for name in names_of(title, family))]
    if missing := [name for name in wanted if name not in by_name]:
        raise ValueError(f"no row of {', '.join(missing)}; measure every setting before one is chosen")
    least = by_name[PLAIN][task][1]  # the lower end of the interval
    chosen = {}
    for title, family in table.items():
        names = names_of(title, family)
        able = [name for name in names if by_name[name][task][0] >= least]
        harmless = sorted(able, key=lambda name: (by_name[name][harm][0], -by_name[name][task][0]))
        chosen[title] = harmless[0] if able else max(names, key=lambda name: by_name[name][task][0])
    return chosen


def rival_rows(
    rows_of: Callable[[str, Sequence[int], Sequence[str]], list[Row]],
    table: Mapping[str, Family],
    seeds: Sequence[int],
    *,
    task: str,
    harm: str,
) -> list[Row]:
    """Measure all settings on validation questions, choose, and measure the chosen ones on test questions.

    Args:
        rows_of: (split, seeds, names of conditions) -> rows.

    Returns:
        The rows of both splits, those of the test split with "family", "chosen of" (how many settings were
        tried) and "told".
    """
    valid = rows_of("valid", (0,), [PLAIN, *grid_conditions(table)])
    chosen = choose(valid, table, task=task, harm=harm)
    families_of = {name: title for title, name in chosen.items()}
    test = rows_of("test", seeds, [PLAIN, *families_of])
    for row in test:
        if title := families_of.get(row["condition"]):
            told = table[title].told
            row |= {"family": title, "chosen of": len(table[title].values)}
            row |= {"told": told.needs, "costs": told.costs}
    return [*(row | {"split": "valid"} for row in valid), *(row | {"split": "test"} for row in test)]
