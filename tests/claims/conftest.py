"""Claims measure for minutes and write records to data/results; see caft_utils/course/records.py.

A claim runs a study of caft_utils/course/studies, prints and saves its rows, and checks the stated bounds.
"""

from __future__ import annotations

import os
import time

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")


@pytest.fixture(scope="session")
def measure_claim():
    """Return a function that runs an experiment, prints its rows and saves them as the record of a claim."""
    from helpers import claims

    from caft_utils.course.records import save_record
    from caft_utils.course.studies.experiment import Experiment
    from caft_utils.course.studies.persona import print_rows

    def measure(claim: str, experiment: Experiment) -> dict:
        started = time.monotonic()
        rows = claims.measure(experiment)
        print_rows(rows)
        save_record(claim, rows, seconds=time.monotonic() - started)
        return {row["condition"]: row for row in rows}

    return measure


@pytest.fixture(scope="session")
def measure_persona_claim(measure_claim):
    """Return a function that measures the claim of one classroom model whose study has the claim's name.

    SEEDS=3 uses three seeds (default 5). PART=stored measures nothing and reports what was measured before.
    """
    from caft_utils.course.studies.experiment import Experiment

    seeds = tuple(range(int(os.environ.get("SEEDS", 5))))
    options = {"stored": True} if os.environ.get("PART") == "stored" else {}
    return lambda claim, model: measure_claim(claim, Experiment(claim, model, seeds, options=options))


@pytest.fixture(autouse=True, scope="session")
def stores() -> None:
    """Leave claims the user's store, unlike other tests, so that a claim resumes where it stopped."""


@pytest.fixture(autouse=True)
def store_folder() -> None:
    """See `stores`."""
