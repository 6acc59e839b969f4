"""The fast form of a notebook, run from its first cell to its last, with the solutions of its exercises.

Each notebook has a test file of its own, because the workers of `make test` share the tests file by file.
"""

from __future__ import annotations

from collections.abc import Callable

import nbformat
import pytest
from helpers.paths import REPOSITORY

from caft_utils.course.exercises.building import proven_notebook
from caft_utils.course.exercises.reading import exercises_of


@pytest.fixture
def run_fast(course, monkeypatch) -> Callable[..., None]:
    """Return `run_fast(name, **parameters)`, which runs a notebook with FAST and fails on its first error.

    Solutions take the places of the stubs, and one that does not pass its check is an error. With another
    model the stubs stay, because pages end early there.
    """
    from caft_utils.course.tutorial.runner import run_all

    monkeypatch.setenv("CAFT_STORE", str(course / "store"))
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")  # no pictures, no embedded library
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(name: str, **parameters: str) -> None:
        path = REPOSITORY / "notebooks" / f"{name}.ipynb"
        if not parameters:
            notebook = nbformat.read(path, as_version=4)
            path = course / "solved" / path.name
            path.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(proven_notebook(notebook, exercises_of(notebook, path.name)), path)
        (done,) = run_all([path], course / "executed", {"FAST": True, **parameters}, fork_kernels=True)
        assert done.status == "done", done.error

    return run
