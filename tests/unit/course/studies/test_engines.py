"""The study of engines: every engine is measured, those that should agree do, and a wrong one would show."""

from __future__ import annotations

import pytest

from caft_utils.course.studies import engines
from caft_utils.course.studies.engines import REFERENCES, engine_rows

pytestmark = pytest.mark.usefixtures("nnsight")


def test_engines_agree_and_a_wrong_one_would_show(monkeypatch):
    monkeypatch.setattr(engines, "NEW_TOKENS", 6)
    monkeypatch.setattr(engines, "PROMPTS", 2)
    monkeypatch.setattr(engines, "ROWS", 2)
    asked = ("plain hooks", "intervention", "NNsight")
    rows = {row["condition"]: row for row in engine_rows("classroom", (0,), asked, fast=True)}
    assert tuple(rows) == asked
    for name, row in rows.items():
        low, high = row["quartiles"]
        assert 0 < low <= row["milliseconds"] <= high and row.get("against") == REFERENCES[name]
        if row.get("against"):
            assert row["logits"] < 1e-5 and row["gradients"] < 1e-5 and row["same_answers"] == 2
    assert rows["plain hooks"]["times_plain"] == 1
    monkeypatch.setattr(engines, "_without", lambda basis, hidden: hidden - 0.9 * (hidden @ basis.T) @ basis)
    (row,) = engine_rows("classroom", (0,), ("intervention",), fast=True)
    assert row["logits"] > 1e-3 and row["gradients"] > 1e-5
