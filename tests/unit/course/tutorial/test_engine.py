"""The executed copy is saved less often than papermill does it, and still in time."""

from __future__ import annotations

import nbformat
import papermill
import pytest

from caft_utils.course.tutorial import engine


@pytest.mark.parametrize("share", [0.003, 1e9], ids=["saves are rare", "each save is due"])
def test_what_ran_before_a_long_cell_is_saved_while_that_cell_runs(tmp_path, monkeypatch, share):
    monkeypatch.setattr(engine, "SAVE_SHARE", share)
    copy = tmp_path / "copy.ipynb"
    long_cell = f"""
import time
from pathlib import Path
deadline = time.monotonic() + 60
while '"ran ' + 'before' not in Path({str(copy)!r}).read_text():
    assert time.monotonic() < deadline, "the copy was not saved while this cell ran"
    time.sleep(0.1)
"""
    cells = ["1 + 1", "print('ran ' + 'before')", long_cell]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, tmp_path / "toy.ipynb")
    started = []
    papermill.execute_notebook(
        tmp_path / "toy.ipynb",
        copy,
        engine_name=engine.ENGINE,
        kernel_name="python3",
        progress_bar=False,
        on_cell=started.append,
    )
    assert started == [0, 1, 2]
