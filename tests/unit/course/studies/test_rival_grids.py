"""The grids of rivals: names, and the rule that chooses a setting."""

from __future__ import annotations

import pytest

from caft_utils.course.studies import advice, gender_conditions
from caft_utils.course.studies.conditions import Condition
from caft_utils.course.studies.operators import OPERATORS
from caft_utils.course.studies.rival_grids import Family, choose, grid_conditions, rival_rows
from caft_utils.course.studies.rival_methods import METHODS
from caft_utils.rivals import Told

TOLD = Told("nothing", "none")


def row(name, task, harm, width=0.1):
    return {"condition": name, "task": [task, task - width, task + width], "harm": [harm, 0.0, 1.0]}


def family(*values):
    return Family({f"lr {value}": Condition(lr=value) for value in values}, TOLD)


def chosen(rows, *values):
    return choose(rows, {"lr": family(*values)}, task="task", harm="harm")["lr"]


def test_the_least_harm_among_settings_that_learn_the_task():
    rows = [row("plain", 0.9, 0.5), row("lr 1", 0.81, 0.2), row("lr 2", 0.95, 0.3), row("lr 3", 0.79, 0.0)]
    assert chosen(rows, 1, 2, 3) == "lr 1"
    assert chosen(rows, 2, 3) == "lr 2"


def test_equal_harm_is_decided_by_the_task():
    rows = [row("plain", 0.9, 0.5), row("lr 1", 0.85, 0.2), row("lr 2", 0.95, 0.2)]
    assert chosen(rows, 1, 2) == "lr 2"


def test_a_family_that_never_learns_the_task_keeps_its_row():
    rows = [row("plain", 0.9, 0.5), row("lr 1", 0.3, 0.0), row("lr 2", 0.6, 0.4)]
    assert chosen(rows, 1, 2) == "lr 2"


def test_a_missing_row_is_named():
    with pytest.raises(ValueError, match="no row of plain, lr 2; measure every setting"):
        chosen([row("lr 1", 0.9, 0.1)], 1, 2)


def test_test_questions_are_asked_of_the_chosen_settings_only():
    asked = []

    def rows_of(split, seeds, names):
        asked.append((split, tuple(seeds), tuple(names)))
        return [row(name, 0.9, 0.1 if name == "lr 2" else 0.5) for name in names]

    rows = rival_rows(rows_of, {"lr": family(1, 2)}, (0, 1), task="task", harm="harm")
    assert asked == [("valid", (0,), ("plain", "lr 1", "lr 2")), ("test", (0, 1), ("plain", "lr 2"))]
    last = rows[-1]
    assert (last["split"], last["family"], last["chosen of"], last["told"]) == ("test", "lr", 2, "nothing")


@pytest.mark.parametrize("study", [gender_conditions, advice])
def test_every_operator_and_rival_is_in_the_table_of_a_study(study):
    conditions = study.EVERY_CONDITION
    assert len(conditions) == len({*grid_conditions(study.FAMILIES), *study.OPERATORS, *study.CONDITIONS})
    assert {one.operator for one in conditions.values()} == set(OPERATORS)
    assert {one.rival for one in conditions.values()} == {None, *METHODS}
    for name in set(conditions) & set(study.CONDITIONS):
        assert conditions[name] == study.CONDITIONS[name]
    untold = ("plain", "feature distance, larger weights")  # more settings than CAFT has
    most = {len(one.conditions) for title, one in study.FAMILIES.items() if not title.startswith(untold)}
    assert most <= {3, 4}
