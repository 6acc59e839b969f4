"""Bounds on CAFT's rivals on the gender task; `make claims CLAIM=gender_rivals` measures the figures again.

The published sentences come from the hub, or from the folder in CAFT_SHARED_DATA. Each family is tuned on
validation rows with seed 0, and its chosen setting is measured with three seeds. It takes hours, and resumes.
"""

from __future__ import annotations

import pytest

from caft_utils.course.records import load_record
from caft_utils.course.studies.experiment import Experiment
from caft_utils.course.studies.gender_conditions import FAMILIES, HARM, TASK
from caft_utils.course.studies.rival_tables import not_shown_worse

MODEL = "smollm2"
AXES = {"task": TASK, "harm": HARM}
NOT_YET = ("KL", "inoculation adapter", "random adapter", "irrelevant prompt", "everyday rows", "steering by")


@pytest.fixture(scope="module")
def rows(measure_claim):
    """All rows: every setting on "valid" items, and the chosen ones on "test" items."""
    measure_claim("real-gender-rivals", Experiment("gender rivals", MODEL, (0, 1, 2)))
    return load_record("real-gender-rivals")["rows"]


@pytest.fixture(scope="module")
def chosen(rows):
    """{family: row} on test items."""
    return {row.get("family", "plain"): row for row in rows if row["split"] == "test"}
