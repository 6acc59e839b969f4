"""Build the intervention of a condition: an operator, and the directions or vectors that it acts on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from caft_utils.course.studies.conditions import Condition, Setting
from caft_utils.interventions import (
    Intervention,
    ablate,
    ablate_activation,
    ablate_gradient,
    edit_affinely,
    erase,
    steer,
)


def intervention(setting: Setting, condition: Condition, name: str | None, seed: int) -> Intervention | None:
    """Return the condition's operator on the directions, vectors or concept `name`; None without a name.

    Raises:
        ValueError: there is no such operator.
    """
    if name is None:
        return None
    if condition.operator not in OPERATORS:
        known = ", ".join(OPERATORS)
        raise ValueError(f"unknown operator {condition.operator!r}; expected one of {known}")
    return OPERATORS[condition.operator](setting, condition, name, seed)


def _mean(setting: Setting, condition: Condition, layers: list[int]) -> Mapping[int, Any] | None:
    if condition.to == "zero":
        return None
    means = setting.mean(condition.to)
    return {layer: means[layer] for layer in layers}


def _ablate(setting: Setting, condition: Condition, name: str, seed: int) -> Intervention:
    found = setting.directions(name, seed)
    return ablate(found, mean=_mean(setting, condition, found.layers))


def _ablate_activation(setting: Setting, condition: Condition, name: str, seed: int) -> Intervention:
    found = setting.directions(name, seed)
    return ablate_activation(found, mean=_mean(setting, condition, found.layers))


def _ablate_gradient(setting: Setting, condition: Condition, name: str, seed: int) -> Intervention:
    return ablate_gradient(setting.directions(name, seed))


def _edit_affinely(setting: Setting, condition: Condition, name: str, seed: int) -> Intervention:
    vectors = setting.vectors(name, seed)
    return edit_affinely(vectors, _mean(setting, condition, list(vectors)), condition.value or 0.0)


def _erase(setting: Setting, condition: Condition, name: str, seed: int) -> Intervention:
    return erase(setting.eraser(name))


def _steer(setting: Setting, condition: Condition, name: str, seed: int) -> Intervention:
    return steer(setting.vectors(name, seed), condition.value)


OPERATORS: dict[str, Callable[[Setting, Condition, str, int], Intervention]] = {
    "ablate": _ablate,
    "activation only": _ablate_activation,
    "gradient only": _ablate_gradient,
    "affine": _edit_affinely,
    "erase": _erase,
    "steer": _steer,
}
