"""Who does as well at a matched score, and what tuning costs."""

from __future__ import annotations

import pytest

from caft_utils.course.studies.conditions import Condition
from caft_utils.course.studies.rival_grids import Family
from caft_utils.course.studies.rival_tables import cost_of_tuning, not_shown_worse
from caft_utils.rivals import Told


def row(name, task, harm, width=0.1):
    return {
        "condition": name,
        "task": [task, task - width, task + width],
        "harm": [harm, harm - width, harm + width],
    }


@pytest.mark.parametrize(
    "task, harm, as_well",
    [(0.9, 0.0, True), (0.75, 0.0, True), (0.65, 0.0, False), (0.9, 0.15, True), (0.9, 0.25, False)],
)
def test_a_rival_not_shown_worse_unless_an_interval_says_otherwise(task, harm, as_well):
    rival, caft = row("rival", task, harm), row("CAFT", 0.9, 0.0)
    assert not_shown_worse(rival, caft, task="task", harm="harm") is as_well


def test_the_cost_of_tuning_is_the_mean_over_all_orders():
    table = {"lr": Family({name: Condition() for name in ("a", "b", "c")}, Told("nothing", "none"))}
    # a learned the task harmlessly, b learned it with harm, c did not learn it and falls back to plain
    rows = [row("plain", 0.9, 0.8), row("a", 0.9, 0.0), row("b", 0.9, 0.6), row("c", 0.2, 0.0)]
    points = cost_of_tuning(rows, table, task="task", harm="harm")
    assert [point["step"] for point in points] == [1, 2, 3]
    # one trial: 0, 0.6 or 0.8. Two: ab 0, ac 0, bc 0.6. Three: 0.
    assert [point["rate"] for point in points] == pytest.approx([(0 + 0.6 + 0.8) / 3, 0.6 / 3, 0.0])


def test_settings_that_were_not_measured_are_no_trials():
    table = {"lr": Family({name: Condition() for name in ("a", "b")}, Told("nothing", "none"))}
    rows = [row("plain", 0.9, 0.8), row("a", 0.9, 0.1)]
    assert len(cost_of_tuning(rows, table, task="task", harm="harm")) == 1
