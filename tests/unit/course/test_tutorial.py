"""The runner of the course, on toy notebooks: progress, parameters, pages, failure, recording."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from caft_utils.course.tutorial.__main__ import _jobs, main
from caft_utils.course.tutorial.progress import Progress, Run, minutes_of
from caft_utils.course.tutorial.stamp import out_of_step, sources

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
    assert run("--seed", "7", "--jobs", "1") == 1
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
    for wrong in (("--only", "99"), ("--jobs", "0")):
        with pytest.raises(SystemExit):
            run(*wrong)


def test_index_draws_a_figure_without_a_picture(tmp_path, run):
    write(tmp_path / "nb", "00_toy", (FIGURE.replace(', "image/png": %s', ""), "key-figure"))
    assert run() == 0
    index = (tmp_path / "build" / "tutorial" / "index.html").read_text()
    assert index.count('Plotly.newPlot("figure-0"') == 1 and "plotly.js v" in index
    assert '"name": "\\u003c/script>"' in index  # a label cannot close the script


def test_two_notebooks_at_a_time_meet(tmp_path, run):
    meet = """
    import time
    from pathlib import Path
    Path("{mine}").touch()
    deadline = time.monotonic() + 60
    while not Path("{other}").exists():
        assert time.monotonic() < deadline, "the other never ran beside this one"
        time.sleep(0.1)
    """
    for number, other in ((0, 1), (1, 0)):
        source = textwrap.dedent(meet.format(mine=f"here{number}", other=f"here{other}"))
        write(tmp_path / "nb", f"0{number}_toy", source)
    assert run("--jobs", "2") == 0


def test_a_failure_lets_the_other_end_and_starts_no_third(tmp_path, run, capsys):
    write(tmp_path / "nb", "00_bad", "raise ValueError('the reason')")
    write(tmp_path / "nb", "01_slow", "import time; time.sleep(12); print('whole')")
    write(tmp_path / "nb", "02_next", "1")
    assert run("--jobs", "2") == 1
    assert "the reason" in capsys.readouterr().err
    out = tmp_path / "build" / "tutorial"
    assert "whole" in (out / "01_slow.html").read_text() and not (out / "02_next.ipynb").exists()


def test_a_killed_process_is_told(tmp_path, run, capsys):
    killer = "import os, signal; os.kill(int(os.environ['JPY_PARENT_PID']), signal.SIGKILL)"
    write(tmp_path / "nb", "00_toy", "print('before')", killer)
    assert run() == 1
    assert "00_toy.ipynb stopped: its process was killed" in capsys.readouterr().err
    assert "before" in (tmp_path / "build" / "tutorial" / "00_toy.ipynb").read_text()


def test_an_interrupt_keeps_what_ran_and_leaves_no_kernel(tmp_path):
    cell = "import os\nfrom pathlib import Path\nPath('pid').write_text(str(os.getpid()))\nprint('before')"
    write(tmp_path / "nb", "00_toy", cell, "import time; time.sleep(600)")
    command = [
        sys.executable,
        "-m",
        "caft_utils.course.tutorial",
        "--notebooks",
        tmp_path / "nb",
        "--build",
        tmp_path,
    ]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    kept = tmp_path / "tutorial" / "00_toy.ipynb"
    wait_for(lambda: kept.exists() and '"before\\n"' in kept.read_text())
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 130 and f"kept in {kept.parent}" in told
    assert "KeyboardInterrupt" not in told
    assert "before" in kept.read_text()
    kernel = Path(f"/proc/{(tmp_path / 'nb' / 'pid').read_text()}")
    wait_for(lambda: not kernel.exists() or "State:\tZ" in (kernel / "status").read_text())


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_real_model_has_the_machine_to_itself(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert (_jobs(None), _jobs("classroom"), _jobs("Qwen/Qwen2.5-7B-Instruct")) == (2, 2, 1)


def test_time_left_follows_the_plan_then_the_pace(tmp_path):
    runs = [Run(tmp_path / f"0{n}.ipynb", "t", minutes=2, cells=10) for n in range(2)]
    progress = Progress(runs, jobs=1, stream=io.StringIO())
    assert progress.left(30) == 210  # nothing done: four planned minutes less half a minute
    assert Progress(runs, jobs=2, stream=io.StringIO()).left(30) == 90
    runs[0].status, runs[1].status, runs[1].cell = "done", "running", 5  # three planned minutes done
    assert progress.left(90) == pytest.approx(30)
    assert "[2/2] 01" in progress.line() and "cell 6 of 10" in progress.line()


def test_minutes_of_notebooks_side_by_side_are_counted_once(tmp_path):
    first, second, waiting = (Run(tmp_path, "t", 1, 1) for _ in range(3))
    first.began, first.seconds, second.began, second.seconds = 100, 60, 130, 90
    assert minutes_of([first, second, waiting]) == 2
    assert minutes_of([waiting]) == 0
