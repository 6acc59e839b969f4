"""What every study returns, rows of one model and condition, and which conditions it measures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]


def chosen_conditions(conditions: tuple[str, ...] | None, available: Iterable[str]) -> list[str]:
    """Return the conditions to measure: those that were named, or all that are available.

    Raises:
        ValueError: one of them is not available.
    """
    names = list(available)
    if conditions is None:
        return names
    if unknown := [name for name in conditions if name not in names]:
        raise ValueError(f"unknown conditions {unknown}; expected some of {names}")
    return list(conditions)
