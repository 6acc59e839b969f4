"""Write executed notebooks as pages that open without network or kernel, and an index of the key figures.

A notebook marks its key figure with the cell tag `key-figure`. The index shows the figure's picture if the
cell's output has one. Otherwise it draws the figure with plotly.js, which is then embedded once.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from caft_utils.course.tutorial.progress import Run, minutes_of
from caft_utils.course.tutorial.stamp import PLOTLY, WIDGET
from caft_utils.formatting import encodable
from caft_utils.store import write_atomically

TEMPLATE = Path(__file__).with_name("index.html.j2")


def write_html(notebook: NotebookNode, path: Path) -> None:
    """Write an executed notebook as one HTML file.

    A widget needs a kernel, so the page shows the HTML of its output if it has any.
    """
    from caft_utils.course.tutorial.offline_page import export

    notebook = deepcopy(notebook)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if "text/html" in output.get("data", {}):
            output["data"].pop(WIDGET, None)
    write_atomically(path, encodable(export(notebook, path.stem)))


def write_guide(page: Path, path: Path) -> None:
    """Write a Markdown page, such as the glossary, as an HTML file that looks like the notebooks."""
    text = new_markdown_cell(page.read_text(encoding="utf-8"))
    write_html(new_notebook(cells=[text]), path)


def key_figure(notebook: NotebookNode) -> tuple[str, Any] | None:
    """Return ("png", base64) or ("plotly", figure) of the cell tagged `key-figure`, or None."""
    for cell in notebook.cells:
        if "key-figure" in cell.metadata.get("tags", []):
            for output in reversed(cell.get("outputs", [])):
                data = output.get("data", {})
                if "image/png" in data:
                    return "png", data["image/png"].replace("\n", "")
                if PLOTLY in data:
                    return "plotly", data[PLOTLY]
    return None


def write_index(runs: list[Run], path: Path) -> None:
    """Write the index page of a run: title, status, minutes and key figure of every notebook."""
    from jinja2 import Environment

    figures = [key_figure(run.notebook) if run.notebook else None for run in runs]
    plotly = ""
    if any(figure and figure[0] == "plotly" for figure in figures):
        from plotly.offline import get_plotlyjs

        plotly = get_plotlyjs()
    template = Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        runs=list(zip(runs, figures, strict=True)),
        done=sum(run.status == "done" for run in runs),
        minutes=minutes_of(runs),
        plotly=plotly,
    )
    write_atomically(path, encodable(page))
