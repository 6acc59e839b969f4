"""Strings that try to become code, through every page, in a real Chromium.

Every string carries a marker. It was executed if the script of the marker ran, if a request left, or if an
element of the page carries the marker where a browser acts on it (a link, a handler, a style).
"""

from __future__ import annotations

import base64
from pathlib import Path
from random import Random

import nbformat
import torch
from helpers.browsers import ARGUMENTS, browser_path

from caft_utils import plots
from caft_utils.course.tutorial.html import write_html, write_index
from caft_utils.course.tutorial.progress import Run
from caft_utils.directions import Directions
from caft_utils.evaluation.comparison import Comparison
from caft_utils.evaluation.measurement import Result
from caft_utils.interpret import Explorer, Extremes, Histogram, TextWindow
from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.explorer import widget
from caft_utils.interpret.score import Score
from caft_utils.tasks.choice import RATES
from faults.outcomes import Outcome
from faults.payloads import MARK, injection
from faults.running import Attempt

LIVE = f"""() => {{
  const found = [];
  const acts = /^(on.*|(xlink:)?href|src|srcset|srcdoc|(form)?action|style|data|background|poster|content)$/;
  for (const node of document.querySelectorAll("*")) {{
    const own = /^.{{0,40}}{MARK}/.test(node.textContent);
    if (own && node.matches("script, style")) found.push(node.outerHTML);
    for (const {{ name, value }} of node.attributes)
      if (acts.test(name) && value.includes("{MARK}")) found.push(node.outerHTML);
  }}
  return [window.{MARK} ?? null, found.map((text) => text.slice(0, 200))];
}}"""
WIDGET = """async ([source, view]) => {
  const module = await import("data:text/javascript;base64," + source);
  const el = document.createElement("div");
  document.body.append(el);
  const model = { get: () => view, on() {}, off() {}, send() {}, save_changes() {} };
  module.default.render({ model, el });
  for (const input of el.querySelectorAll("input, [tabindex]")) input.focus();
}"""
DRAW = """async (source) => {
  const figure = JSON.parse(source), div = document.createElement("div");
  document.body.append(div);
  await Plotly.newPlot(div, figure.data, figure.layout);
}"""


def injected(home: Path) -> Attempt:
    """One page with strings of that kind in every field that is text, opened in a browser."""
    page, requests = _browser_page()
    if page is None:
        return lambda rng, folder: Outcome("skipped", "no Chromium or no playwright here")
    from plotly.offline import get_plotlyjs

    (home / "plotly.js").write_text(get_plotlyjs(), encoding="utf-8")
    places = {
        "cards": _cards, "card": _card, "comparison": _comparison, "index": _index, "notebook": _notebook,
    }  # fmt: skip

    def attempt(rng: Random, folder: Path) -> Outcome:
        requests.clear()
        path = folder / "page.html"
        name = rng.choice((*places, "widget", "figure"))
        if name in places:
            places[name](rng, path)
        else:
            path.write_text("<!doctype html><meta charset=utf-8><body>", encoding="utf-8")
        page.goto(path.as_uri())
        if name == "widget":
            view = _explorer(rng)
            view.widget.message = injection(rng)
            view.widget.draw()
            (folder / "input.txt").write_text(repr(view.widget.view), "utf-8", "backslashreplace")
            source = base64.b64encode((Path(widget.__file__).parent / "explorer.js").read_bytes()).decode()
            page.evaluate(WIDGET, [source, view.widget.view])
        elif name == "figure":
            figure = _figure(rng)
            (folder / "input.txt").write_text(figure, "utf-8", "backslashreplace")
            page.add_script_tag(path=home / "plotly.js")
            page.evaluate(DRAW, figure)
        page.wait_for_timeout(60)
        ran, live = page.evaluate(LIVE)
        if ran is not None or live or requests:
            return Outcome("executed", f"{name}: ran {ran}, live {live[:2]}, requests {requests[:2]}"[:600])
        return Outcome("fine", name)

    return attempt


def _explorer(rng: Random) -> Explorer:
    found = Directions({1: torch.eye(8)[:2]}, {"explained_variance": {1: [0.5, 0.25]}})
    windows = [
        TextWindow([injection(rng), injection(rng), "\n"], [0.5, 4.0, -1.0], 1, row=4, position=7)
        for _ in range(2)
    ]
    ends = Extremes(windows, windows[:1], Histogram(4.0, [0] * 10 + [1] * 20 + [3] + [0] * 9))
    pairs = [(1, 0), (1, 1)]
    explanations = {(1, 0, "+"): Explanation(injection(rng), injection(rng))}
    scores = {(1, 0, "+"): {injection(rng): Score(injection(rng), 0.9, 0.8, 0.95, 40)}}
    view = Explorer(
        found, dict.fromkeys(pairs, ends), dict.fromkeys(pairs, ([injection(rng)], [injection(rng)])),
        explanations=explanations, scores=scores,
    )  # fmt: skip
    view.select(1, 0)
    view.name(1, 0, injection(rng))
    return view


def _write(path: Path, body: str) -> None:
    path.write_text(f"<!doctype html><meta charset=utf-8><body>{body}", encoding="utf-8")


def _cards(rng: Random, path: Path) -> None:
    _write(path, _explorer(rng).html())


def _card(rng: Random, path: Path) -> None:
    _write(path, _explorer(rng).card(1, 0))


def _comparison(rng: Random, path: Path) -> None:
    rates = {injection(rng): RATES[name] for name in RATES}
    rows = [
        {"set": spec.set, "question": n, "run": "r", "verdict": spec.hits[0]}
        for spec in RATES.values()
        for n in (0, 1)
    ]
    results = {injection(rng): Result(rows, "m", 1.0, rates) for _ in range(2)}
    _write(path, Comparison(results, injection(rng), rates, tuple(rates)[:2])._repr_html_())


def _figure(rng: Random) -> str:
    rows = [
        {"label": injection(rng), "task": 0.5, "misaligned": 0.2},
        {"label": injection(rng), "task": 0.7, "misaligned": 0.4},
    ]
    curve = [{"series": injection(rng), "step": n, "loss": 1.0} for n in (1, 2)]
    made = rng.choice((
        lambda: plots.tradeoff(rows, model=injection(rng), title=injection(rng), x_label=injection(rng)),
        lambda: plots.rates(rows, model=injection(rng), label=injection(rng), title=injection(rng)),
        lambda: plots.training_curve(curve, model=injection(rng), label=injection(rng), title=injection(rng)),
    ))  # fmt: skip
    return made().to_json()


def _index(rng: Random, path: Path) -> None:
    runs = [
        Run(path.with_name(f"0{n}_x.ipynb"), injection(rng), 1.0, 3, status=status, error=injection(rng))
        for n, status in enumerate(("done", "failed", "waiting"))
    ]
    write_index(runs, path)


def _notebook(rng: Random, path: Path) -> None:
    v4 = nbformat.v4
    outputs = [
        v4.new_output("stream", name="stdout", text=injection(rng)),
        v4.new_output("execute_result", data={"text/plain": injection(rng)}),
        v4.new_output(
            "error",
            ename=injection(rng),
            evalue=injection(rng),
            traceback=[injection(rng), f"\x1b[31m{injection(rng)}\x1b[0m"],
        ),
    ]
    cell = v4.new_code_cell(f"print({injection(rng)!r})", outputs=outputs)
    write_html(v4.new_notebook(cells=[v4.new_markdown_cell("# A title"), cell]), path)


def _browser_page():
    """Return a page of a headless Chromium and the list of requests that it tried to send, or (None, [])."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None, []
    path = browser_path()
    if path is None:
        return None, []
    driver = sync_playwright().start()  # ends with this process
    page = driver.chromium.launch(executable_path=path, args=ARGUMENTS).new_page()
    page.set_default_timeout(20_000)
    requests: list[str] = []

    def route(route_):
        if route_.request.url.startswith(("file:", "data:", "blob:")):
            route_.continue_()
        else:
            requests.append(route_.request.url)
            route_.abort()

    page.route("**", route)
    page.on("dialog", lambda dialog: (requests.append("a dialog"), dialog.dismiss()))
    return page, requests
