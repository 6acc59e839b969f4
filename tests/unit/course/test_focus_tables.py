"""The tables of claim "focus": lowest and highest split, and the instruction a method is judged under."""

from __future__ import annotations

from caft_utils.course.focus_tables import (
    STANDARD,
    UNSEEN,
    focus_features_table,
    focus_rho_table,
    focus_table,
)
from caft_utils.tasks.focus import CORE_TYPES, TYPES

RATES = {f"{split}: {kind}": [1.0, 0.9, 1.0] for split in (*STANDARD, *UNSEEN) for kind in TYPES}
RATES |= {"low: focus(S)": [0.25, 0.2, 0.3], "unseen values: ignore(S)": [0.5, 0.4, 0.6]}
SWEPT = {"conflict: empty": [0.8, 0.7, 0.9], "conflict: ignore(S)": [0.6, 0.5, 0.7]}
SWEPT |= {"conflict: focus(S)": [0.4, 0.3, 0.5]}


def row(setting, condition, rates):
    return {"model": "m", "setting": setting, "condition": condition, "rates": rates, "seeds": [0, 1]}


def test_a_cell_has_the_lowest_rate_with_its_interval_and_the_highest():
    table = focus_table({"rows": [row("speakers", "FIT", RATES)]})
    measured = table[table["from"] == "measured here, 2 seeds"]
    ((_, method, core, spurious, unseen_core, unseen_spurious, _),) = measured.to_numpy().tolist()
    assert method == "FIT" and core == "100 % [90, 100] to 100 %"
    assert spurious == "25 % [20, 30] to 100 %"
    assert unseen_core == "50 % [40, 60] to 100 %" and unseen_spurious == "100 % [90, 100] to 100 %"
    assert set(table["from"]) == {"paper", "measured here, 2 seeds"} and len(CORE_TYPES) == 4


def test_the_real_model_follows_the_classroom():
    rows = [row("keywords", "FIT", RATES) | {"model": "real"}, row("speakers", "SFT(y)", RATES)]
    table = focus_table({"rows": rows})
    assert table[["model", "method"]].to_numpy().tolist()[-2:] == [["m", "SFT(y)"], ["real", "FIT"]]


def test_fit_is_judged_by_instruction_and_other_methods_without_any():
    rows = [row("rho 0.5", "FIT", SWEPT), row("rho 0.5", "plain", SWEPT), row("rho 1", "plain", SWEPT)]
    table = focus_rho_table({"rows": rows}).set_index("measured here")
    assert list(table.columns) == ["rho 0.5", "rho 1"]
    assert table["rho 0.5"].to_dict() == {
        "FIT, ignore(S)": "60 % [50, 70]",
        "FIT, focus(S)": "40 % [30, 50]",
        "plain": "80 % [70, 90]",
    }
    assert table["rho 1"].to_dict()["FIT, focus(S)"] == ""


def test_seen_and_unseen_features_stand_side_by_side():
    rates = {"seen: empty": [0.9, 0.8, 1.0], "unseen: empty": [0.5, 0.4, 0.6]}
    table = focus_features_table({"rows": [row("speakers", "FIT", RATES), row("subjects", "FIT", rates)]})
    assert table.to_numpy().tolist() == [["empty", "90 % [80, 100]", "50 % [40, 60]"]]
