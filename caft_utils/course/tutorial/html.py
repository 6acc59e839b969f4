"""Executed notebooks as pages that open without a network or a kernel, and one index with the key figures.

A notebook names its key figure with the cell tag `key-figure`. Where the figure was drawn as a picture, the
index shows that; else it draws the figure with plotly.js, which is then embedded in the page, once.
"""

from __future__ import annotations

import html
import json
from copy import deepcopy
from pathlib import Path

from nbformat import NotebookNode

from caft_utils.course.tutorial.progress import Run, minutes_of
from caft_utils.course.tutorial.stamp import PLOTLY, WIDGET

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222 }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
section { border-top: 1px solid #ddd; padding: 1rem 0 } h2 { margin: 0 } p { margin: .3rem 0 }
.status { color: #555 } .failed { color: #b00020; font-weight: bold } img { max-width: 100% }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 13px }
"""


def write_html(notebook: NotebookNode, path: Path) -> None:
    """An executed notebook as one HTML file.

    A widget has no kernel there: where its output has HTML as well, that is what the page shows.
    """
    from nbconvert import HTMLExporter

    notebook = deepcopy(notebook)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if "text/html" in output.get("data", {}):
            output["data"].pop(WIDGET, None)
    page, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    path.write_text(page, encoding="utf-8")


def key_figure(notebook: NotebookNode) -> tuple[str, str] | None:
    """("png", base64) or ("plotly", JSON) of the cell tagged `key-figure`; None when there is none."""
    for cell in notebook.cells:
        if "key-figure" in cell.metadata.get("tags", []):
            for output in reversed(cell.get("outputs", [])):
                data = output.get("data", {})
                if "image/png" in data:
                    return "png", data["image/png"].replace("\n", "")
                if PLOTLY in data:
                    return "plotly", json.dumps(data[PLOTLY])
    return None


def write_index(runs: list[Run], path: Path) -> None:
    """The index page of a run: title, status, minutes and key figure of every notebook."""
    figures = [key_figure(run.notebook) if run.notebook else None for run in runs]
    library = ""
    if any(figure and figure[0] == "plotly" for figure in figures):
        from plotly.offline import get_plotlyjs

        library = f"<script>{get_plotlyjs()}</script>"
    body = "".join(_section(n, run, figure) for n, (run, figure) in enumerate(zip(runs, figures)))
    minutes = minutes_of(runs)
    done = sum(run.status == "done" for run in runs)
    path.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>CAFT course</title>'
        f"<style>{STYLE}</style>{library}<h1>Concept Ablation Fine-Tuning: the course as it ran here</h1>"
        f"<p>{done} of {len(runs)} notebooks in {minutes:.1f} minutes.</p>{body}</html>",
        encoding="utf-8",
    )


def _section(number: int, run: Run, figure: tuple[str, str] | None) -> str:
    title = html.escape(run.title)
    link = f'<a href="{html.escape(run.path.stem)}.html">{title}</a>' if run.notebook else title
    time = f", {run.seconds / 60:.1f} minutes" if run.seconds else ""
    parts = [f'<section><h2>{link}</h2><p class="status {run.status}">{run.status}{time}</p>']
    if run.error:
        parts.append(f"<pre>{html.escape(run.error)}</pre>")
    if figure and figure[0] == "png":
        parts.append(f'<img alt="key figure: {title}" src="data:image/png;base64,{html.escape(figure[1])}">')
    elif figure:
        data = figure[1].replace("<", "\\u003c")  # a label cannot close the script element
        parts.append(
            f'<div id="figure-{number}"></div><script>{{const f = {data}; '
            f'Plotly.newPlot("figure-{number}", f.data, f.layout, {{responsive: true}});}}</script>'
        )
    return "".join(parts) + "</section>"
