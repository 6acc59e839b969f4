"""Bounds on the real model; `make claims CLAIM=real` measures the figures again.

The published sentences come from the hub, or from the folder in CAFT_SHARED_DATA. SEEDS=3 uses three seeds
(default 5). Cells that were measured before are read from the store; PART=stored measures nothing and reports
these cells.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from caft_utils.course.records import save_record
from caft_utils.course.studies.experiment import Experiment, run
from caft_utils.course.studies.gender_bias import HEADLINE, RECIPES
from caft_utils.course.studies.persona import print_rows

MODEL = "smollm2"
SEEDS = tuple(range(int(os.environ.get("SEEDS", 5))))
STORED = os.environ.get("PART") == "stored"
READ, RANDOM = "CAFT, components read blind", "random directions"


def measured(claim: str, experiment: Experiment) -> dict[str, dict[str, dict]]:
    """Measure an experiment, record its rows, and return them by setting and condition."""
    started = time.monotonic()
    rows = run(experiment)
    print_rows(rows)
    save_record(claim, rows, seconds=time.monotonic() - started)
    out: dict[str, dict[str, dict]] = {}
    for row in rows:
        out.setdefault(row["setting"], {})[row["condition"]] = row
    return out


@pytest.fixture(scope="module")
def gender():
    folder = os.environ.get("CAFT_SHARED_DATA")
    file = str(Path(folder) / "caft" / "gender.csv") if folder else None
    options = {"file": file, "recipes": list(RECIPES), "stored": STORED}
    return measured("real-gender", Experiment("gender", MODEL, SEEDS, options=options))


@pytest.fixture(scope="module")
def advice():
    return measured("real-advice", Experiment("advice", MODEL, SEEDS, options={"stored": STORED}))


def test_plain_training_learns_the_task_in_every_recipe(gender):
    assert all(table["plain"]["task_accuracy"][0] >= 0.97 for table in gender.values())


def test_plain_training_follows_the_stereotype_in_the_headline_recipe(gender):
    reversed_rows = {recipe: table["plain"]["ood_accuracy"][0] for recipe, table in gender.items()}
    assert min(reversed_rows, key=reversed_rows.__getitem__) == HEADLINE
    assert reversed_rows[HEADLINE] <= 0.35


def test_directions_that_were_read_generalise_and_random_ones_do_not(gender):
    table = gender[HEADLINE]
    assert table[READ]["ood_accuracy"][0] >= 0.90 and table[READ]["task_accuracy"][0] >= 0.95
    assert abs(table[RANDOM]["ood_accuracy"][0] - table["plain"]["ood_accuracy"][0]) <= 0.25


def test_narrow_advice_goes_wide(advice):
    (table,) = advice.values()
    plain, good = table["plain"]["bad_elsewhere"], table["good advice"]["bad_elsewhere"]
    assert plain[1] > good[2] and plain[0] > table["base"]["bad_elsewhere"][0]
