"""Bounds on CAFT's rivals on the gender task; `make claims CLAIM=gender_rivals` measures the figures again.

The published sentences come from the hub, or from the folder in CAFT_SHARED_DATA. Each family is tuned on
validation sentences with seed 0, and its chosen setting is measured on test sentences. It takes hours, keeps
each cell, and goes on where it stopped; PART=stored measures nothing and reports these cells.
"""

from __future__ import annotations

import os

import pytest

from caft_utils.course.records import load_record
from caft_utils.course.studies.experiment import Experiment
from caft_utils.course.studies.gender_conditions import FAMILIES, HARM, TASK
from caft_utils.course.studies.rival_tables import learned_task, not_shown_worse

MODEL = "smollm2"
AXES = {"task": TASK, "harm": HARM}
MEASURED = (  # the other families of gender_conditions.FAMILIES are not in the record yet
    "CAFT, lr",
    "plain, step",
    "plain, lr",
    "plain, lr and step",
    "interleaved counterexamples",
    "feature distance",
    "inoculation prompt",
    "preventative steering",
    "steering at test",
)


@pytest.fixture(scope="module")
def rows(measure_claim):
    """All rows: every setting on "valid" sentences, and the chosen ones on "test" sentences."""
    options = {"stored": True} if os.environ.get("PART") == "stored" else {}
    seeds = tuple(range(int(os.environ.get("SEEDS", 3))))
    measure_claim("real-gender-rivals", Experiment("gender rivals", MODEL, seeds, MEASURED, options))
    return load_record("real-gender-rivals")["rows"]


@pytest.fixture(scope="module")
def valid(rows):
    """{condition: row} on validation sentences."""
    return {row["condition"]: row for row in rows if row["split"] == "valid"}


@pytest.fixture(scope="module")
def chosen(rows):
    """{family: row} on test sentences."""
    return {row.get("family", "plain"): row for row in rows if row["split"] == "test"}


def test_caft_does_well_at_each_of_its_learning_rates(valid):
    rows = [valid[name] for name in FAMILIES["CAFT, lr"].conditions]
    assert all(
        row["ood_accuracy"][0] >= 0.95 and learned_task(row, valid["plain"], task=TASK) for row in rows
    )


def test_plain_training_does_well_at_one_of_four(valid):
    rows = {name: valid[name] for name in FAMILIES["plain, lr"].conditions}
    assert [name for name, row in rows.items() if row["ood_accuracy"][0] >= 0.95] == ["plain, lr 0.0003"]


def test_plain_training_and_counterexamples_at_their_best_are_not_shown_worse_than_caft(chosen):
    for name in ("plain, lr", "interleaved counterexamples"):
        assert not_shown_worse(chosen[name], chosen["CAFT, lr"], **AXES), name


@pytest.mark.parametrize(
    "name",
    ["feature distance", "inoculation prompt", "preventative steering", "steering at test", "plain, step"],
)
def test_other_rivals_are_worse_than_caft(chosen, name):
    assert chosen[name]["ood_accuracy"][2] < chosen["CAFT, lr"]["ood_accuracy"][1]
