"""The frontier on one seed, with a few steps."""

from __future__ import annotations

import pytest

from caft_utils.course.studies import frontier, persona


def test_each_curve_has_a_row_for_each_rate_and_step(monkeypatch):
    monkeypatch.setattr(frontier, "persona_setting", lambda name: persona.persona_setting(name, fast=True))
    rows = frontier.frontier_rows("classroom-qwen", (0,), rates=(1e-4, 1e-2), steps=(1, 3))
    assert [(row["curve"], row["lr"], row["step"]) for row in rows] == [
        (curve, lr, step) for curve in frontier.CONDITIONS for lr in (1e-4, 1e-2) for step in (1, 3)
    ]
    assert {row["seeds"][0] for row in rows} == {0}
    slow, fast = (row["loss"] for row in rows if row["curve"] == "plain" and row["step"] == 3)
    assert slow != pytest.approx(fast)
