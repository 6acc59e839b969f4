"""Colours of conditions."""

from __future__ import annotations

from caft_utils.plots.style import CONDITION_COLOURS, styles


def test_a_condition_keeps_its_colour_beside_its_variants():
    rows = [{"label": label} for label in ("plain, lr", "CAFT, one reference", "plain", "CAFT")]
    colours = {label: colour for label, colour, _ in styles(rows, "label")}
    assert colours["plain"] == CONDITION_COLOURS["plain"] and colours["CAFT"] == CONDITION_COLOURS["caft"]
    assert len(set(colours.values())) == 4


def test_a_conditions_colour_means_that_condition_in_every_figure():
    rows = [{"label": label} for label in ("mean difference", "random directions", "layer 1", "layer 2")]
    colours = {label: colour for label, colour, _ in styles(rows, "label")}
    assert colours.pop("random directions") == CONDITION_COLOURS["random"]
    assert not set(colours.values()) & set(CONDITION_COLOURS.values())


def test_more_labels_than_colours_repeat_them():
    rows = [{"label": f"layer {n}"} for n in range(9)]
    colours = [colour for _, colour, _ in styles(rows, "label")]
    assert len(set(colours)) == 8 and colours[8] == colours[0]
