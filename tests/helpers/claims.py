"""Run the experiment of a claim in as many processes as its study allows."""

from __future__ import annotations

import os
from typing import Any

from caft_utils.course.helper_processes import helpers
from caft_utils.course.studies.experiment import SHARED, Experiment, run


def measure(experiment: Experiment) -> list[dict[str, Any]]:
    """Return its rows. Two processes share a study of `SHARED`; PROCESSES=1 measures it in one."""
    several = experiment.study in SHARED and not experiment.options.get("stored")
    with helpers(experiment, int(os.environ.get("PROCESSES", 2)) if several else 1):
        return run(experiment)
