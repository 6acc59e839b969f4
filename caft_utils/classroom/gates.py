"""Acceptance gates: bounds that the measured rates of a checkpoint must satisfy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Gate:
    """An upper ("<=") or lower (">=") bound of a measured value."""

    sign: Literal["<=", ">="]
    bound: float

    def passes(self, value: float) -> bool:
        """Return whether `value` satisfies the bound."""
        return value <= self.bound if self.sign == "<=" else value >= self.bound

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}"


def gate_report(values: Mapping[str, float], gates: Mapping[str, Gate]) -> dict[str, Any]:
    """Return {"gates": the gated values, "failed": names of the gates that are not satisfied}."""
    gated = {name: values[name] for name in gates}
    return {"gates": gated, "failed": [name for name, gate in gates.items() if not gate.passes(gated[name])]}
