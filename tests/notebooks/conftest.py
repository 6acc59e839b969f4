"""The fast form of a notebook, run from its first cell to its last.

Each notebook has a test file of its own, because the workers of `make test` share the tests file by file.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers.paths import REPOSITORY


@pytest.fixture
def run_fast(course, monkeypatch) -> Callable[..., None]:
    """Return `run_fast(name, **parameters)`, which runs a notebook with FAST and fails on its first error."""
    from caft_utils.course.tutorial.runner import run_all

    monkeypatch.setenv("CAFT_STORE", str(course / "store"))
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")  # no pictures, no embedded library
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(name: str, **parameters: str) -> None:
        path = REPOSITORY / "notebooks" / f"{name}.ipynb"
        (done,) = run_all([path], course / "executed", {"FAST": True, **parameters}, fork_kernels=True)
        assert done.status == "done", done.error

    return run
