"""The runner on toy notebooks: parameters, pages, failures, interrupts, and notebooks side by side."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import pytest

from caft_utils.course.tutorial.forked_kernel import can_fork_kernels
from caft_utils.course.tutorial.runner import run_all

# a cell that ends some seconds after the failure of the notebook beside it
WAIT = """
import time
from pathlib import Path
deadline = time.monotonic() + 120
while not Path("failing").exists():
    assert time.monotonic() < deadline, "the other notebook never ran beside this one"
    time.sleep(0.1)
time.sleep(3)
print("whole")
"""


def test_a_course_runs_with_parameters_and_leaves_pages(tmp_path, run, capsys, write, figure):
    write(
        "00_toy",
        "import os\nprint('seed', SEED, os.environ['CAFT_STORE'])",
        (figure(), "key-figure"),
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


def test_a_lesson_that_ends_early_is_no_failure_and_its_page_says_why(tmp_path, run, write):
    end = "from caft_utils.course.early_end import LessonEnds\nraise LessonEnds('**it ends**: no labels')"
    write("00_short", "print('before')", end, "print('after')")
    assert run("--jobs", "1") == 0
    out = tmp_path / "build" / "tutorial"
    ended = nbformat.read(out / "00_short.ipynb", as_version=4)
    assert not any("after" in cell.source for cell in ended.cells)
    (output,) = ended.cells[-1].outputs
    assert output.output_type == "display_data" and output.data["text/markdown"] == "**it ends**: no labels"
    page = (out / "00_short.html").read_text()
    assert "<strong>it ends</strong>" in page and "Traceback" not in page


def test_an_error_that_says_what_to_do_is_told_in_one_line(run, capsys, write):
    write("00_offline", "def f():\n    raise ConnectionError('no weights; connect and try again')\nf()")
    assert run("--jobs", "1") == 1
    told = [line.strip() for line in capsys.readouterr().err.splitlines()]
    at = told.index("ConnectionError: no weights; connect and try again")
    assert told[at - 1].startswith("00_offline.ipynb stopped at cell") and "Traceback" not in "".join(told)


def test_a_failure_names_notebook_cell_and_error_and_keeps_what_ran(tmp_path, run, capsys, write):
    write("00_bad", "print('before')", "raise ValueError('the reason')", "print('after')")
    write("01_next", "print('never')")
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


def test_two_notebooks_at_a_time_meet(tmp_path, run, write):
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
        write(f"0{number}_toy", source)
    assert run("--jobs", "2") == 0


def test_a_notebook_starts_after_those_that_it_reuses(run, write):
    last = """
    import time
    from pathlib import Path
    deadline = time.monotonic() + 60
    while not Path("third").exists():
        assert time.monotonic() < deadline, "the third never ran beside the first"
        time.sleep(0.1)
    Path("made").touch()
    """
    write("00_maker", textwrap.dedent(last))
    write("01_reader", "from pathlib import Path\nassert Path('made').exists()", reuses=["00"])
    write("02_other", "from pathlib import Path\nPath('third').touch()")
    assert run("--jobs", "2") == 0


def test_a_notebook_that_reuses_another_starts_beside_it_when_no_other_is_left(run, write):
    write("00_maker", WAIT)
    write("01_reader", "from pathlib import Path; Path('failing').touch()", reuses=["00"])
    assert run("--jobs", "2") == 0


def test_a_failure_lets_the_other_end_and_starts_no_third(tmp_path, run, capsys, write):
    write("00_bad", "from pathlib import Path; Path('failing').touch()\nraise ValueError('the reason')")
    write("01_slow", WAIT)
    write("02_next", "1")
    assert run("--jobs", "2") == 1
    assert "the reason" in capsys.readouterr().err
    out = tmp_path / "build" / "tutorial"
    assert "whole" in (out / "01_slow.html").read_text() and not (out / "02_next.ipynb").exists()


def test_an_interrupt_keeps_what_ran_and_leaves_no_kernel(tmp_path, write):
    cell = "import os\nfrom pathlib import Path\nPath('pid').write_text(str(os.getpid()))\nprint('before')"
    write("00_toy", cell, "import time; time.sleep(600)")
    command = [
        sys.executable,
        "-m",
        "caft_utils.course.tutorial",
        "--no-fork",
        "--notebooks",
        tmp_path / "nb",
        "--build",
        tmp_path,
    ]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    kept = tmp_path / "tutorial" / "00_toy.ipynb"
    wait_for(lambda: kept.exists() and '"before\\n"' in kept.read_text())
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=300)
    assert child.returncode == 130 and f"kept in {kept.parent}" in told
    assert "KeyboardInterrupt" not in told
    assert "before" in kept.read_text()
    kernel = Path(f"/proc/{(tmp_path / 'nb' / 'pid').read_text()}")
    wait_for(lambda: not kernel.exists() or "State:\tZ" in (kernel / "status").read_text())


def wait_for(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.skipif(not can_fork_kernels(), reason="kernels are not forked on this machine")
def test_forked_kernels_share_imports_and_nothing_else(tmp_path, write, monkeypatch):
    monkeypatch.setattr(
        "caft_utils.course.tutorial.forked_kernel.PRELOAD", "caft_utils.course.tutorial.runner"
    )
    monkeypatch.setenv("CAFT_STORE", "elsewhere")
    printed = "'papermill' in sys.modules, 'x' in globals(), SEED, os.getenv('CAFT_STORE')"
    cell = f"import os, sys\nprint({printed})\nx = 1"
    paths = [write("00_toy", cell, "print(os.getcwd())"), write("01_toy", cell, "1 / 0")]
    runs = run_all(paths, tmp_path / "out", {"SEED": 7}, fork_kernels=True, stream=io.StringIO())
    assert [run.status for run in runs] == ["done", "failed"] and "ZeroDivisionError" in runs[1].error
    for run in runs:
        first = next(cell for cell in run.notebook.cells if "globals" in cell.source)
        assert first.outputs[0].text == "True False 7 elsewhere\n"
    assert str(tmp_path / "nb") in runs[0].notebook.cells[-1].outputs[0].text
