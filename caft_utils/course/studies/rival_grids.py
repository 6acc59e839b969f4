"""The rivals of a real model's study: a grid of settings for each, and the rule that chooses a setting.

Every family of conditions gets the same effort: each of its settings is measured once, with seed 0, on
validation questions. One rule chooses the setting: the least harm among the settings whose task score is not
below the interval of plain fine-tuning. Only the chosen setting is measured on test questions, with all
seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from caft_utils.course.studies.conditions import Condition
from caft_utils.course.studies.study_rows import Row
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
CAFT_RATES = (3e-4, 5e-4, 1e-3, 2e-3)
CAFT_TOLD = Told("directions, found without labels or with them, as the row says", "what finding them costs")
UNREAD_TOLD = Told("directions taken without a reading", "reference fine-tunings")
NOTHING_TOLD = Told("nothing", "nothing")


@dataclass(frozen=True)
class Family:
    """Conditions that differ in one setting, by name, and what the method was told."""

    conditions: Mapping[str, Condition]
    told: Told


def families(caft: str, steps: Sequence[int], rates: Sequence[float]) -> dict[str, Family]:
    """Return every family by name.

    Args:
        caft: name of the directions that CAFT ablates.
        steps, rates: the steps at which plain fine-tuning is stopped, and its learning rates.
    """
    steering, table = preventative_steering, {}

    def add(name: str, told: Told, values: Iterable[float], condition: Callable[[float], Condition]) -> None:
        table[name] = Family({f"{name} {value:g}": condition(value) for value in values}, told)

    def add_rival(name: str, told: Told, *values: float) -> None:
        add(name, told, values, lambda value: Condition(rival=name, value=value))

    def steered(**names: str) -> Callable[[float], Condition]:
        return lambda value: Condition(operator="steer", value=value, **names)

    against, plain = [-value for value in STRENGTHS], early_stopping.TOLD
    add("CAFT, lr", CAFT_TOLD, CAFT_RATES, lambda lr: Condition(during=caft, lr=lr))
    add("plain, step", plain, steps, lambda step: Condition(step=step))
    add("plain, lr", plain, rates, lambda lr: Condition(lr=lr))
    both = {f"plain, lr {lr:g}, step {n}": Condition(lr=lr, step=n) for lr in rates for n in steps}
    table["plain, lr and step"] = Family(both, plain)
    add("preventative steering", steering.TOLD, STRENGTHS, steered(during="trait"))
    control = steered(during="random trait")
    add("steering by a random vector", steering.CONTROL_TOLD, STRENGTHS, control)
    add("steering against the trait", steering.TOLD, against, steered(during="trait"))
    add("steering at test", at_test_time.STEERING_TOLD, against, steered(at_test="trait"))
    add_rival("inoculation prompt", inoculation_prompt.TOLD, 0, 1, 2, 3)
    add_rival("irrelevant prompt", inoculation_prompt.CONTROL_TOLD, 0, 1, 2, 3)
    add_rival("inoculation adapter", inoculation_adapter.TOLD, *TRAIT_STEPS)
    add_rival("random adapter", inoculation_adapter.CONTROL_TOLD, *TRAIT_STEPS)
    add_rival("KL to the base", kl_to_base.TOLD, 0.03, 0.1, 0.3, 1.0)
    add_rival("KL on everyday text", kl_to_base.OTHER_TEXT_TOLD, 0.1, 0.3, 1.0, 3.0)
    add_rival("feature distance", feature_distance.TOLD, 0.1, 1.0, 10.0, 100.0)
    add_rival("interleaved everyday rows", interleaving.TOLD, 0.05, 0.1, 0.2, 0.4)
    add_rival("interleaved counterexamples", interleaving.COUNTEREXAMPLES_TOLD, 0.02, 0.05, 0.1, 0.2)
    return table


def grid_conditions(table: Mapping[str, Family]) -> dict[str, Condition]:
    """Return the conditions of all families by name, such as "KL to the base 0.1"."""
    return {name: one for family in table.values() for name, one in family.conditions.items()}


def operator_conditions(caft: str, concept: str, *, to: str, value: float) -> dict[str, Condition]:
    """Return the conditions of the operators, which have nothing to tune.

    Args:
        caft: name of the directions that CAFT ablates. concept: name of the concept with labels.
        to, value: the mean that affine editing starts from, and how far it moves towards the other mean.
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

    If no setting of a family learns the task, the setting with the highest task score is chosen, and its row
    shows the low score. Ties in harm are broken by the task score, then by the order of the values.

    Args:
        rows: one row for each condition, including "plain", measured on validation questions.
        task: the rate that should be high. harm: the rate that should be low.

    Raises:
        ValueError: a condition of a family, or "plain", has no row.
    """
    by_name = {row["condition"]: row for row in rows}
    wanted = [PLAIN, *grid_conditions(table)]
    if missing := [name for name in wanted if name not in by_name]:
        raise ValueError(f"no row of {', '.join(missing)}; measure every setting before one is chosen")
    least = by_name[PLAIN][task][1]  # the lower end of the interval
    chosen = {}
    for title, family in table.items():
        names = list(family.conditions)
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
            row |= {"family": title, "chosen of": len(table[title].conditions)}
            row |= {"told": told.needs, "costs": told.costs}
    return [*(row | {"split": "valid"} for row in valid), *(row | {"split": "test"} for row in test)]
