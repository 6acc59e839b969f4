"""Bounds on what the engines agree on, and on what they cost; `make claims CLAIM=nnsight` measures it again.

The times of a busy machine say little, so their bounds are wide. The record holds the quartiles.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from caft_utils.backends.nnsight_models import TESTED
from caft_utils.course.studies.experiment import Experiment

pytestmark = pytest.mark.skipif(
    find_spec("nnsight") is None,
    reason=f"NNsight is optional and not installed: pip install nnsight=={TESTED}",
)
OPTIONS = {
    "classroom": {"rounds": 9, "steps": 5},
    "classroom-mistral": {"rounds": 9, "steps": 5, "checkpointing": True},
    "smollm2": {"rounds": 7, "steps": 1, "batch_size": 2},  # a step of 8 rows takes 15 seconds
}
CONDITIONS = {"smollm2": ("plain hooks", "intervention", "NNsight", "intervention, sinks spared")}


@pytest.fixture(scope="module", params=OPTIONS)
def rows(request, measure_claim):
    model = request.param
    return measure_claim(
        "nnsight", Experiment("engines", model, (0,), CONDITIONS.get(model), options=OPTIONS[model])
    )


def test_the_engines_agree(rows):
    compared = [row for row in rows.values() if "against" in row]
    assert {"intervention", "NNsight"} <= {row["condition"] for row in compared}
    for row in compared:
        assert row["logits"] < 1e-5 and row["gradients"] < 1e-5, row["condition"]
        assert row["same_answers"] == row["answers"] > 0, row["condition"]


def test_an_intervention_costs_no_more_than_a_hook(rows):
    assert rows["intervention"]["times_plain"] < 1.25
    assert rows["intervention, sinks spared"]["times_plain"] < 1.5


def test_a_trace_costs_less_than_another_step(rows):
    assert rows["NNsight"]["times_plain"] < 2
