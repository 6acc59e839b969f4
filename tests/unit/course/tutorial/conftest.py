"""Toy notebooks, and the command that runs them."""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from caft_utils.course.tutorial.__main__ import main

FIGURE = """
from IPython.display import display
figure = {"data": [{"type": "scatter", "x": [1, 2], "y": [3, 4], "name": "</script>"}], "layout": {}}
display({"application/vnd.plotly.v1+json": figure, "text/html": "<div>dynamic</div>"%s}, raw=True)
"""
PICTURE = ', "image/png": "iVBORw0KGgo="'


@pytest.fixture
def figure():
    """Source of a cell that shows a figure: figure(picture=True) with a static image."""
    return lambda picture=True: FIGURE % (PICTURE if picture else "")


@pytest.fixture
def write(tmp_path):
    """Write a toy notebook: write(name, *cells, title=...), where a cell is source or (source, tag)."""

    def write(name, *cells, title="A toy", **caft):
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = new_notebook(metadata={"kernelspec": kernel, "caft": {"minutes": 0.1, **caft}})
        notebook.cells = [
            new_markdown_cell(f"# {title}"),
            new_code_cell("SEED = 1", metadata={"tags": ["parameters"]}),
        ]
        for cell in cells:
            source, tags = (cell, []) if isinstance(cell, str) else (cell[0], [cell[1]])
            notebook.cells.append(new_code_cell(source, metadata={"tags": tags}))
        folder = tmp_path / "nb"
        folder.mkdir(exist_ok=True)
        nbformat.write(notebook, folder / f"{name}.ipynb")
        return folder / f"{name}.ipynb"

    return write


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the toy notebooks: run(*arguments) -> exit status. Kernels are processes of their own."""
    for name in ("CAFT_STORE", "PLOTLY_RENDERER"):  # main sets them, and they are restored
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("caft_utils.course.tutorial.runner.can_fork_kernels", lambda: False)
    return lambda *more: main(
        ["--notebooks", str(tmp_path / "nb"), "--build", str(tmp_path / "build"), *more]
    )
