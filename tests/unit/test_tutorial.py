"""The runner of the course, on toy notebooks: progress, parameters, pages, failure, recording."""

from __future__ import annotations

import io
import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from caft_utils.tutorial.__main__ import main
from caft_utils.tutorial.record import out_of_step, sources
from caft_utils.tutorial.run import Progress, Run

FIGURE = """
from IPython.display import display
figure = {"data": [{"type": "scatter", "x": [1, 2], "y": [3, 4], "name": "</script>"}], "layout": {}}
display({"application/vnd.plotly.v1+json": figure, "text/html": "<div>dynamic</div>", "image/png": %s},
        raw=True)
"""
PNG = '"iVBORw0KGgo="'


def write(folder, name, *cells, title="A toy"):
    """cells: source, or (source, tag)."""
    notebook = new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "caft": {"minutes": 0.1},
        }
    )
    notebook.cells = [
        new_markdown_cell(f"# {title}"),
        new_code_cell("SEED = 1", metadata={"tags": ["parameters"]}),
    ]
    for cell in cells:
        source, tags = (cell, []) if isinstance(cell, str) else (cell[0], [cell[1]])
        notebook.cells.append(new_code_cell(source, metadata={"tags": tags}))
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    for name in ("CAFT_STORE", "PLOTLY_RENDERER"):  # main sets them: restored after the test
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return lambda *more: main(
        ["--notebooks", str(tmp_path / "nb"), "--build", str(tmp_path / "build"), *more]
    )


def test_a_course_runs_with_parameters_and_leaves_pages(tmp_path, run, capsys):
    write(
        tmp_path / "nb",
        "00_toy",
        "import os\nprint('seed', SEED, os.environ['CAFT_STORE'])",
        (FIGURE % PNG, "key-figure"),
        title="One & <two>",
    )
    assert run("--seed", "7") == 0
    out = tmp_path / "build" / "tutorial"
    executed = (out / "00_toy.ipynb").read_text()
    assert f"seed 7 {tmp_path / 'build' / 'store'}" in executed
    assert "seed 7" in (out / "00_toy.html").read_text()
    index = (out / "index.html").read_text()
    assert (
        "One &amp; &lt;two&gt;" in index and "data:image/png;base64,iVBORw0KGgo=" in index and "done" in index
    )
    told = capsys.readouterr()
    assert "[1/1] 00_toy" in told.err and "done in" in told.err and str(out / "index.html") in told.out


def test_a_failure_names_notebook_cell_and_error_and_keeps_what_ran(tmp_path, run, capsys):
    write(tmp_path / "nb", "00_bad", "print('before')", "raise ValueError('the reason')", "print('after')")
    write(tmp_path / "nb", "01_next", "print('never')")
    assert run("--seed", "7") == 1
    told = capsys.readouterr().err
    assert "00_bad.ipynb stopped at cell 4 of 5 (In [4])" in told and "ValueError: the reason" in told
    assert "\x1b" not in told
    out = tmp_path / "build" / "tutorial"
    kept = (out / "00_bad.ipynb").read_text()
    assert "before" in kept and "the reason" in kept
    index = (out / "index.html").read_text()
    assert "failed" in index and "the reason" in index and "waiting" in index
    assert not (out / "01_next.ipynb").exists()


def test_recording_keeps_outputs_and_nothing_of_the_machine(tmp_path, run):
    path = write(
        tmp_path / "nb",
        "00_toy",
        "from pathlib import Path\nprint('10%\\r90%\\rdone', Path.home() / 'x')",
        FIGURE % PNG,
    )
    assert out_of_step(path)  # not recorded yet
    assert run("--record") == 0
    text = path.read_text()
    notebook = nbformat.reads(text, as_version=4)
    assert notebook.cells[2].outputs[0].text == "done ~/x\n"
    assert set(notebook.cells[3].outputs[0].data) == {"application/vnd.plotly.v1+json", "image/png"}
    assert notebook.metadata.caft == {"minutes": 0.1, "sources": sources(notebook)}
    assert "papermill" not in text and str(tmp_path) not in text
    assert run("--check") == 0


def test_a_changed_cell_or_a_missing_picture_is_out_of_step(tmp_path, run):
    path = write(tmp_path / "nb", "00_toy", "print('hello')", FIGURE % PNG)
    assert run("--record") == 0
    recorded = json.loads(path.read_text())
    for change, word in (
        (lambda cells: cells[2].update(source="print('hallo')"), "changed"),
        (lambda cells: cells[2].update(execution_count=None), "top to bottom"),
        (lambda cells: cells[3]["outputs"][0]["data"].pop("image/png"), "static image"),
        (
            lambda cells: cells[2].update(
                outputs=[{"output_type": "error", "ename": "E", "evalue": "", "traceback": []}]
            ),
            "error",
        ),
    ):
        changed = json.loads(json.dumps(recorded))
        change(changed["cells"])
        path.write_text(json.dumps(changed))
        assert word in "; ".join(out_of_step(path))
        assert run("--check") == 1


def test_a_recording_has_no_parameters_of_its_own(run, tmp_path):
    write(tmp_path / "nb", "00_toy", "1")
    with pytest.raises(SystemExit):
        run("--record", "--seed", "3")
    with pytest.raises(SystemExit):
        run("--only", "99")


def test_index_draws_a_figure_without_a_picture(tmp_path, run):
    write(tmp_path / "nb", "00_toy", (FIGURE.replace(', "image/png": %s', ""), "key-figure"))
    assert run() == 0
    index = (tmp_path / "build" / "tutorial" / "index.html").read_text()
    assert index.count('Plotly.newPlot("figure-0"') == 1 and "plotly.js v" in index
    assert '"name": "\\u003c/script>"' in index  # a label cannot close the script


def test_time_left_follows_the_plan_then_the_pace(tmp_path):
    runs = [Run(tmp_path / f"0{n}.ipynb", "t", minutes=2, cells=10) for n in range(2)]
    progress = Progress(runs, io.StringIO())
    assert progress.left(30) == 210  # nothing done: four planned minutes less half a minute
    progress.start(1)
    progress.cell(5)  # three planned minutes done
    assert progress.left(90) == pytest.approx(30)
    assert "[2/2] 01" in progress.line() and "cell 6 of 10" in progress.line()
