"""Bounds on how a local judge agrees with the exact grader; `make claims CLAIM=judge` measures it again.

The judge is a model of 135M parameters, and the record says how good it is. The bounds hold what its
intervals show.
"""

from __future__ import annotations

import pytest

from caft_utils.course.studies.experiment import Experiment
from caft_utils.course.studies.judge_calibration import JUDGES, SCALES


@pytest.fixture(scope="module")
def rows(measure_claim):
    return measure_claim("judge", Experiment("judge", "smollm2", (0,)))


def test_the_model_as_released_is_no_judge(rows):
    for scale in SCALES:
        row = rows[f"{scale}: as released"]
        assert row["unanswered"] > 0.9 and row["auroc"] is None and row["mass on numbers"] < 0.25


@pytest.mark.parametrize("scale", SCALES)
def test_every_answer_got_a_reading(rows, scale):
    for name in JUDGES:
        row = rows[f"{scale}: {name}"]
        assert sum(row["readings"].values()) == row["answers"] > 0


@pytest.mark.parametrize("scale", SCALES)
def test_shuffled_pairs_are_at_chance(rows, scale):
    _, low, high = rows[f"{scale}: trained"]["auroc of shuffled pairs"]
    assert low < 0.5 < high
