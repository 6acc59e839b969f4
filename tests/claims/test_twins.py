"""Twins with another attention pattern; `make claims CLAIM=twins` measures them.

`make classroom ARGS="qwen-full mistral-window --output build/classroom"` trains them first. They are not
shipped, and without them the test is skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from caft_utils.course.studies.experiment import Experiment
from caft_utils.course.studies.twins import FOLDER, SHIPPED

TWINS = Path(os.environ.get("CAFT_TWINS", FOLDER))


@pytest.mark.parametrize("twin", SHIPPED)
def test_the_twins_can_be_compared(twin, measure_claim):
    """No bound on what is found, which is reported; but a twin without the behaviour would show nothing."""
    if not (TWINS / twin / "config.json").exists():
        pytest.skip(f'no {TWINS / twin}; make classroom ARGS="{twin} --output {TWINS}"')
    for name in (twin, SHIPPED[twin]):
        rows = measure_claim("twins", Experiment("twins", name, options={"folder": str(TWINS)}))
        assert rows["base"]["misaligned"][0] <= 0.02, name
        assert rows["plain"]["task"][0] >= 0.9, name
