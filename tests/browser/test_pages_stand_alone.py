"""Pages in a real Chromium: no hostile text runs, no request leaves, and dark pages are readable."""

from __future__ import annotations

from pathlib import Path

from nbformat.v4 import new_code_cell, new_notebook, new_output

from caft_utils import plots
from caft_utils.course.tutorial.html import write_html, write_index
from caft_utils.course.tutorial.progress import Run

HOST = "http://127.0.0.1:9"
HOSTILE = (
    f"<script>window.evil=1;fetch('{HOST}/s')</script></script><img src='{HOST}/i' onerror=window.evil=1>"
    f"--><a href='{HOST}/a'>link</a> ![x]({HOST}/m) <style>@import '{HOST}/c'</style>\u202e\x00\ud83d"
    ' "quoted"'
)


def test_no_text_runs_or_asks_a_host(page, tmp_path):
    figure = plots.rates([{"label": HOSTILE, "misaligned": 0.2}], model=HOSTILE, label=HOSTILE, title=HOSTILE)
    outputs = [
        new_output("display_data", data={"application/vnd.plotly.v1+json": figure.to_plotly_json()}),
        new_output("display_data", data={"text/markdown": HOSTILE}),
        new_output("display_data", data={"text/html": f"<img src='{HOST}/i'><script src={HOST}></script>"}),
        new_output("display_data", data={"text/markdown": f"![picture]({HOST}/p)"}),
        new_output("stream", text=HOSTILE),
    ]
    notebook = new_notebook(cells=[new_code_cell("1", outputs=outputs, metadata={"tags": ["key-figure"]})])
    write_html(notebook, tmp_path / "toy.html")
    run = Run(Path("toy.ipynb"), HOSTILE, 1.0, 1, status="done", error=HOSTILE)
    run.notebook = notebook
    write_index([run], tmp_path / "index.html")

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name in ("toy", "index"):
        page.goto(f"file://{tmp_path}/{name}.html")
        assert page.evaluate("window.evil") is None
    page.wait_for_selector(".main-svg")
    drawn = page.locator(".js-plotly-plot").text_content()
    assert '"quoted"' in drawn and "<a href" in drawn
    assert page.locator(f"a[href^='{HOST}']").count() == 0  # the label's link is text
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_a_reader_who_prefers_dark_pages_gets_them_with_figures_on_white(page, tmp_path):
    figure = plots.rates([{"label": "plain", "misaligned": 0.2}], model="m")
    output = new_output("display_data", data={"text/html": figure.to_html(full_html=False)})
    notebook = new_notebook(cells=[new_code_cell("1", outputs=[output])])
    write_html(notebook, tmp_path / "toy.html")
    write_index([Run(Path("toy.ipynb"), "Toy", 1.0, 1, status="done")], tmp_path / "index.html")

    def style(element: str, name: str) -> str:
        return page.evaluate(f"getComputedStyle(document.querySelector({element!r}))[{name!r}]")

    page.goto(f"file://{tmp_path}/toy.html")
    page.wait_for_selector(".main-svg")
    assert style("html", "filter") == "none"
    page.emulate_media(color_scheme="dark")
    assert "invert(0.9)" in style("html", "filter") and "invert(1)" in style(".js-plotly-plot", "filter")
    page.goto(f"file://{tmp_path}/index.html")
    assert style("body", "backgroundColor") == "rgb(27, 27, 27)"
