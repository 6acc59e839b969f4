"""Colours of conditions."""

from __future__ import annotations

from caft_utils.plots.style import CONDITION_COLOURS, styles


def test_a_condition_keeps_its_colour_beside_its_variants():
    rows = [{"label": label} for label in ("plain, lr", "CAFT, one reference", "plain", "CAFT")]
    colours = {label: colour for label, colour, _ in styles(rows, "label")}
    assert colours["plain"] == CONDITION_COLOURS["plain"] and colours["CAFT"] == CONDITION_COLOURS["caft"]
    assert len(set(colours.values())) == 4
