"""End a notebook early with a reason: `LessonEnds` stops it without counting as a failure.

In Jupyter the exception shows its message in place of a traceback, and "Run all" stops. The tutorial ends the
page there: the message becomes the output of its cell, and the cells below are left out.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import nbformat

if TYPE_CHECKING:
    from nbformat import NotebookNode


class LessonEnds(Exception):  # noqa: N818 - an end, not an error
    """Raised by a notebook if its model does not support the rest of the lesson. The text is Markdown."""

    def _render_traceback_(self) -> list[str]:  # IPython shows this
        return [str(self)]


def end_page(notebook: NotebookNode, cell: int) -> None:
    """Turn the `LessonEnds` of a cell into text, and remove the cells after it."""
    ended = notebook.cells[cell]
    for i, output in enumerate(ended.outputs):
        if output.output_type == "error":
            text = {"text/markdown": output.evalue, "text/plain": output.evalue}
            ended.outputs[i] = nbformat.v4.new_output("display_data", data=text)
    del notebook.cells[cell + 1 :]


def needs_package(name: str, extra: str) -> None:
    """End the notebook where an optional package is not installed.

    Args:
        name: of the module.
        extra: of this package that installs it.

    Raises:
        LessonEnds: the module cannot be found.
    """
    if find_spec(name) is None:
        pins = f"requirements-{extra}.txt"
        raise LessonEnds(
            f"**This notebook needs `{name}`, which is not installed.** It is an optional extra, because the "
            f"rest of the course does without it. `.venv/bin/python -m pip install -r {pins}` in the folder "
            "of the course installs the tested version and leaves all other packages as they are. Then run "
            "the notebook again from its first cell."
        )
