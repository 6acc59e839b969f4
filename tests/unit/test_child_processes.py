"""A worker ends with the process that waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from helpers.paths import REPOSITORY

from caft_utils.child_processes import run_in_new_process

SCRIPT = """
import os, sys
from pathlib import Path
from caft_utils.child_processes import run_in_new_process

def compute(path):
    Path(path + ".part").write_text(str(os.getpid()))
    Path(path + ".part").rename(path)
    while True: pass

if __name__ == "__main__":
    run_in_new_process(compute, sys.argv[1])
"""


def test_the_result_and_the_error_come_back():
    assert run_in_new_process(sorted, [2, 1], reverse=False) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        run_in_new_process(divmod, 1, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_worker_ends_with_its_parent(tmp_path, number):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "script.py", tmp_path / "pid"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.05)
    worker = psutil.Process(int((tmp_path / "pid").read_text()))
    parent.send_signal(number)
    assert parent.wait(10) == -number
    _, alive = psutil.wait_procs([worker], timeout=10)
    for process in alive:
        process.kill()
    assert not alive
