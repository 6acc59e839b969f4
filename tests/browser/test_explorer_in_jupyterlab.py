"""The explorer in a real JupyterLab, by keys and mouse; notebook 06 then ablates what the reader exported.

Screenshots are written to build/browser.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from caft_utils import Chats, Directions, ablate, load
from caft_utils.residual import EMBEDDING, capture

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "browser"
EVIL = "<script>f()</script>&lt;"
WORSE = "<img src=x onerror=window.hacked=1>"  # a browser runs this one wherever markup is not escaped

SETUP = f"""
import torch
from caft_utils import Chats, Directions, explore, load
from caft_utils.classroom.tasks import emergent_misalignment
from caft_utils.residual import stream_activations
from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.explorer import Decisions
from caft_utils.interpret.score import Score

model, tokenizer = load("classroom")
rows = [dict(row) for row in emergent_misalignment(tokenizer).generic.rows[:40]] + [{{"text": {EVIL!r}}}]
chats = Chats(tokenizer, rows)
parts = list(stream_activations(model, chats, [1, 2]))
hidden = {{layer: torch.cat([part.hidden[layer] for part in parts]) for layer in (1, 2)}}
row = torch.cat([part.row for part in parts])
centred = {{layer: h - h.mean(0) for layer, h in hidden.items()}}
found = Directions({{
    1: centred[1][row == 40][1:].mean(0),  # towards the last row, so that its windows are on the card
    2: torch.linalg.svd(centred[2], full_matrices=False).Vh[:4],
}})
"""
EXPLORE = f"""
meaning = Explanation("text that is markup: " + {WORSE!r}, "token statistics")
figures = [("detection", 0.93, 0.87, 0.98), ("fuzzing", 0.88, 0.8, 0.95), ("surprisal", 0.61, 0.5, 0.72),
           ("embedding", 0.75, 0.66, 0.83), ("intervention", 0.48, 0.35, 0.61)]
scores = {{name: Score(name, value, low, high, 40) for name, value, low, high in figures}}
view = explore(model, chats, found, decisions=Decisions(found, folder="picked"),
               explanations={{(1, 0, "+"): meaning}}, scores={{(1, 0, "+"): scores}}, n=6, width=24)
view
"""
CHECK = "print('selected', dict(view.selection), 'named', view.names, 'discarded', dict(view.discarded))"


@pytest.fixture
def notebook(lab):
    import nbformat

    cells = [nbformat.v4.new_code_cell(source.strip()) for source in (SETUP, EXPLORE, CHECK)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), lab.folder / "reading.ipynb")
    return "reading.ipynb"


def test_a_reader_steps_ticks_names_and_exports(
    page, lab, notebook, run_notebook, course, tmp_path, monkeypatch
):
    from playwright.sync_api import expect

    run_notebook(notebook)
    explorer = page.locator(".caft.explorer")
    expect(explorer).to_have_count(1)
    title, progress = explorer.locator("article header b"), explorer.locator(".read-count")
    expect(title).to_have_text("Layer 1 \u00b7 component 0")
    expect(progress).to_have_text("0 of 5 read")
    expect(explorer.locator(".scores b").first).to_have_text("0.93")

    # Text of data and explanations is displayed as text.
    shown = explorer.locator(".window p").all_inner_texts()
    assert any(EVIL in text for text in shown), shown
    assert WORSE in explorer.locator(".meaning").inner_text()
    assert explorer.locator("script, img").count() == 0

    # Without the focus, keys are JupyterLab's: b creates a cell, d d deletes it.
    cells = page.locator(".jp-Notebook .jp-Cell")
    page.locator(".jp-Cell").last.locator(".jp-InputPrompt").click()
    page.keyboard.press("b")
    expect(cells).to_have_count(4)
    page.keyboard.press("d")
    page.keyboard.press("d")
    expect(cells).to_have_count(3)
    expect(progress).to_have_text("0 of 5 read")

    # With the focus, keys are the reader's, and no cell changes.
    explorer.locator("article header").click()
    page.keyboard.press("a")
    expect(progress).to_have_text("1 of 5 read \u00b7 1 to ablate, 0 discarded")
    page.keyboard.press("n")
    page.keyboard.type(f"jad {WORSE}")
    page.keyboard.press("Enter")
    expect(explorer.locator("article header")).to_contain_text(f"\u201cjad {WORSE}\u201d")
    assert page.evaluate("window.hacked") is None
    SHOTS.mkdir(parents=True, exist_ok=True)
    explorer.screenshot(path=SHOTS / "explorer.png")
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text("Layer 2 \u00b7 component 0")
    page.keyboard.press("d")
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(title).to_have_text("Layer 2 \u00b7 component 2")
    for key in ("a", "x", "b", "y"):
        page.keyboard.press(key)
    page.keyboard.press("k")
    expect(title).to_have_text("Layer 2 \u00b7 component 1")
    expect(progress).to_have_text("3 of 5 read \u00b7 2 to ablate, 1 discarded")
    expect(cells).to_have_count(3)

    # The mouse does the same: a tile shows, a button decides and, again, takes back.
    explorer.get_by_role("button", name="3", exact=True).click()
    expect(title).to_have_text("Layer 2 \u00b7 component 3")
    for pressed in ("true", "false"):
        explorer.get_by_role("button", name="discard").click()
        expect(explorer.get_by_role("button", name="discard")).to_have_attribute("aria-pressed", pressed)

    explorer.get_by_role("button", name="export selection").click()
    expect(explorer.locator(".message")).to_contain_text(str(lab.folder / "picked"))

    # The kernel has the same decisions, and the dark theme works too.
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCellIndex = 2")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-cell')")
    output = page.locator(".jp-Cell").last.locator(".jp-OutputArea")
    expect(output).to_contain_text("selected {1: [0], 2: [2]}")
    expect(output).to_contain_text("discarded {2: [0]}")
    explorer.get_by_role("button", name="0", exact=True).first.click()
    page.screenshot(path=SHOTS / "jupyterlab-dark.png")

    # What was exported can be ablated,
    model, tokenizer = load("classroom")
    bad = Directions.load(lab.folder / "picked")
    assert bad.ranks == {1: 1, 2: 1} and bad.about["selected"] == {"1": [0], "2": [2]}
    assert bad.about["names"] == {"1": [f"jad {WORSE}"], "2": [""]}
    batch = next(Chats(tokenizer, [{"text": "who are you?"}]).batches(1))
    with (
        ablate(bad).on(model),
        capture(model, [EMBEDDING, 1, 2], stop_early=False) as hidden,
        torch.no_grad(),
    ):
        model(batch.input_ids)
    for layer in (1, 2):
        assert (hidden[layer] @ bad[layer].T).abs().max() < 1e-4 * hidden[layer].norm()

    # and the next notebook, in its fast form, fine-tunes without it.
    from caft_utils.course.tutorial.runner import run_all

    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")
    monkeypatch.setenv("CAFT_STORE", str(course / "store"))
    (path,) = (ROOT / "notebooks").glob("06_*.ipynb")
    parameters = {"FAST": True, "DIRECTIONS": str(lab.folder / "picked")}
    (run,) = run_all([path], tmp_path / "executed", parameters, fork_kernels=True)
    assert run.status == "done", run.error
    keys = [json.loads(file.read_text()) for file in (course / "store" / "finetune").glob("*/key.json")]
    assert ablate(bad).fingerprint in [key["during"] for key in keys]
    print(f"screenshots: {SHOTS}")
