"""Bounds on how a local judge agrees with the exact grader; `make claims CLAIM=judge` measures it again.

The judge is a model of 135M parameters, so the claim is about the protocol and its controls: how good the
judge is, the record says.
"""

from __future__ import annotations

import pytest

from caft_utils.course.studies.experiment import Experiment
from caft_utils.course.studies.judge_calibration import CONDITIONS


@pytest.fixture(scope="module")
def rows(measure_claim):
    return measure_claim("judge", Experiment("judge", "smollm2", (0,)))


@pytest.mark.parametrize("name", CONDITIONS)
def test_shuffled_pairs_are_at_chance(rows, name):
    if rows[name]["auroc"] is not None:  # a judge that never answers with a number has none
        _, low, high = rows[name]["auroc of shuffled pairs"]
        assert low < 0.5 < high


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_answer_got_a_reading(rows, name):
    assert sum(rows[name]["readings"].values()) == rows[name]["answers"] > 0
