"""Every notebook runs top to bottom in its fast form, and its committed outputs belong to its code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from caft_utils.course.tutorial.stamp import stale_reasons

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """One folder with one artefact store for all workers: what a notebook trained is not trained again."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "course"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, course, monkeypatch):
    from caft_utils.course.tutorial.runner import run_all

    monkeypatch.setenv("CAFT_STORE", str(course / "store"))
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")  # no pictures, no embedded library
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (run,) = run_all([path], course / "executed", {"FAST": True}, fork_kernels=True)
    assert run.status == "done", run.error


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_in_step(path):
    assert stale_reasons(path) == []
