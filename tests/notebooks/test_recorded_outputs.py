"""The outputs in every committed notebook belong to its code, and every notebook has a test that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.paths import REPOSITORY

from caft_utils.course.tutorial.stamp import stale_reasons

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_in_step(path):
    assert stale_reasons(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_test_runs_the_notebook(path):
    test = Path(__file__).with_name(f"test_{path.stem}.py")
    assert f'run_fast("{path.stem}")' in test.read_text()
