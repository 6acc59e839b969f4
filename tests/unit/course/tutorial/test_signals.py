"""Nothing goes on computing after the runner, an executor or a kernel was signalled or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from helpers.paths import REPOSITORY

from caft_utils.course.tutorial.progress import Run
from caft_utils.course.tutorial.signals import Stopped, stopped_by_signals

# The libraries that notebooks import take seconds; a toy notebook needs none of them.
QUICK = """
import sys
from caft_utils.course.tutorial import forked_kernel
forked_kernel.PRELOAD = "caft_utils.course.tutorial.runner"
from caft_utils.course.tutorial.__main__ import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
# A cell that computes for ever, and has a process of its own that does too.
COMPUTE = """
import os, subprocess, sys
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
print("before")
Path("pids.part").write_text(f"{os.getppid()} {os.getpid()} {child.pid}")
Path("pids.part").rename("pids")
while True: pass
"""


@pytest.fixture
def started(tmp_path, write):
    """Start a run of a computing notebook and a short one: started() -> (runner, pids by name)."""
    runners, pids = [], []

    def start():
        write("00_computes", COMPUTE)
        write("01_ends", "print('whole')")
        (tmp_path / "quick.py").write_text(QUICK)
        command = [sys.executable, tmp_path / "quick.py", "--notebooks", tmp_path / "nb", "--build", tmp_path]
        told = (tmp_path / "told").open("w")
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        runners.append(subprocess.Popen([*command, "--jobs", "2"], stdout=told, stderr=told, env=environment))
        written = tmp_path / "nb" / "pids"
        wait_for(lambda: written.exists() or runners[0].poll() is not None)
        pids.extend(map(int, written.read_text().split()))
        return runners[0], dict(zip(("executor", "kernel", "child"), pids, strict=True))

    yield start
    for runner in runners:
        runner.kill()
        runner.wait()
    for pid in filter(computes, pids):
        os.kill(pid, signal.SIGKILL)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def computes(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_all_ends_with_the_runner(started, tmp_path, number):
    runner, pids = started()
    wait_for(lambda: "before" in (tmp_path / "tutorial" / "00_computes.ipynb").read_text())
    runner.send_signal(number)
    status = runner.wait(60)
    wait_for(lambda: not any(map(computes, pids.values())), 10)
    assert status == (-number if number == signal.SIGKILL else 128 + number)
    if number == signal.SIGTERM:
        assert "00_computes.ipynb was stopped" in (tmp_path / "tutorial" / "index.html").read_text()
        assert "before" in (tmp_path / "tutorial" / "00_computes.html").read_text()


@pytest.mark.parametrize("killed, told", [("executor", "its process was"), ("kernel", "its kernel was")])
def test_a_kill_is_told_and_the_other_notebook_ends(started, tmp_path, killed, told):
    runner, pids = started()
    copy = tmp_path / "tutorial" / "00_computes.ipynb"
    if killed == "executor":  # as if it had been killed while it wrote the copy, by a writer of less care
        os.kill(pids["executor"], signal.SIGSTOP)
        copy.write_text('{"cells": [')
    os.kill(pids[killed], signal.SIGKILL)
    assert runner.wait(60) == 1
    wait_for(lambda: not any(map(computes, pids.values())), 10)
    text = (tmp_path / "told").read_text()
    assert told in text and "(signal 9)" in text and "memory" in text and "Traceback" not in text
    index = (tmp_path / "tutorial" / "index.html").read_text()
    assert told in index and "failed" in index and "done" in index
    assert "whole" in (tmp_path / "tutorial" / "01_ends.html").read_text()
    assert copy.exists() == (killed == "kernel") and not list(copy.parent.glob(".*"))


def test_a_second_hangup_does_not_cut_short_what_the_first_started():
    ended = []
    with pytest.raises(Stopped) as stopped, stopped_by_signals():
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(1)
        finally:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            ended.append(True)
    assert ended and stopped.value.number == signal.SIGHUP
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_page_that_cannot_be_written_is_told_and_the_others_go_on(run, write, capsys, monkeypatch):
    ended = []

    def run_all(paths, *_, finished, **__):
        runs = [Run(path, "", 1.0, 1, status="done", notebook=nbformat.read(path, 4)) for path in paths]
        for each in runs:
            finished(each, runs)
            ended.append(each)
        return runs

    def full(notebook, path):
        raise OSError(28, f"the disk that holds {path.parent} is full")

    monkeypatch.setattr("caft_utils.course.tutorial.runner.run_all", run_all)
    monkeypatch.setattr("caft_utils.course.tutorial.html.write_html", full)
    write("00_toy", "1"), write("01_toy", "1")
    assert run() == 1 and len(ended) == 2
    told = capsys.readouterr().err
    assert "00_toy" in told and "01_toy" in told and "is full" in told


def test_a_build_folder_that_is_a_file_is_told(tmp_path, run, write, capsys):
    write("00_toy", "1")
    Path(tmp_path / "build").touch()
    assert run() == 1
    assert str(tmp_path / "build") in capsys.readouterr().err
