"""Execute notebooks in order, some side by side, with papermill, and report progress.

Each notebook runs in its own process and kernel. Its executed copy is written while it runs, so outputs
before a failure or Ctrl-C are kept. Notebooks share trained artefacts through the store. If two need the same
artefact at the same time, one makes it and the other waits. To avoid that wait, a notebook that names others
in `metadata.caft.reuses` starts after them, as long as another notebook can start in its place.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError

from caft_utils.child_processes import end_with_parent, kill_group
from caft_utils.course.tutorial.engine import ENGINE
from caft_utils.course.tutorial.forked_kernel import (
    ForkedKernel,
    can_fork_kernels,
    kernel_manager,
    start_server,
)
from caft_utils.course.tutorial.progress import Progress, Run
from caft_utils.course.tutorial.signals import end_kernel_when_signalled

TRACEBACK_LINES = 15
SAY_WHAT_TO_DO = ("ConnectionError", "LessonUnavailable")  # shown without a traceback: the message is enough
SHUTDOWN_SECONDS = 5  # time for a notebook to shut down its kernel before the next, harder signal


def run_all(
    paths: list[Path],
    out: Path,
    parameters: dict[str, Any],
    *,
    jobs: int = 1,
    stream: TextIO | None = None,
    finished: Callable[[Run, list[Run]], None] = lambda run, runs: None,
    fork_kernels: bool = False,
) -> list[Run]:
    """Start the notebooks in the given order, `jobs` at a time; one that reuses others may start later.

    After a failure no further notebook is started, and `Run.error` of the failed notebook says what happened.
    If the run is interrupted, running notebooks are stopped and count as failed.

    Args:
        paths: the notebooks.
        out: folder for the executed copies.
        parameters: values for the cell tagged `parameters`.
        stream: where progress is reported (default: standard error).
        finished: called after each notebook with its run and all runs.
        fork_kernels: import the libraries once and fork every kernel, see forked_kernel.py.
    """
    runs = [Run.of(path) for path in paths]
    out.mkdir(parents=True, exist_ok=True)
    for run in runs:  # remove complete and partial pages of an earlier run
        name = run.path.stem
        for path in (out / f"{name}.ipynb", out / f"{name}.html", *out.glob(f".{name}.*.part")):
            path.unlink(missing_ok=True)
    context = _context(fork_kernels)
    waiting: list[Run] = list(runs)
    busy: dict[Connection, tuple[Run, Any]] = {}
    ended: list[Run] = []
    with Progress(runs, jobs, stream or sys.stderr) as progress:
        try:
            while waiting or busy or ended:
                while waiting and len(busy) < jobs:
                    run = waiting.pop(_next(waiting, runs))
                    process, messages = _start(context, run, out / run.path.name, parameters)
                    busy[messages] = run, process
                    progress.started(run)
                for run in ended:  # the next notebooks are already running while these pages are written
                    finished(run, runs)
                ended.clear()
                for messages in wait(list(busy)) if busy else []:
                    run, process = busy[messages]
                    if not _receive(run, messages):
                        continue
                    process.join()
                    del busy[messages]
                    _ended(run, process, out / run.path.name)
                    progress.finished(run)
                    ended.append(run)
                    if run.status == "failed":
                        waiting.clear()
        except KeyboardInterrupt:
            _stop(busy)
            for run in ended:
                finished(run, runs)
            for run, process in busy.values():
                run.status, run.error = "failed", f"{run.path.name} was stopped before its end"
                _ended(run, process, out / run.path.name)
                finished(run, runs)
            busy.clear()
            raise
        finally:
            _stop(busy)
    return runs


def _next(waiting: list[Run], runs: list[Run]) -> int:
    """Return the place of the first waiting notebook whose `reuses` have all run, or 0 if there is none."""
    unfinished = {run.path.name[:2] for run in runs if run.status in ("waiting", "running")}
    return next((i for i, run in enumerate(waiting) if unfinished.isdisjoint(run.reuses)), 0)


def _context(fork_kernels: bool) -> Any:
    """Return how executors start. They never fork from this process, because its threads would break."""
    if not (fork_kernels and can_fork_kernels()):
        return multiprocessing.get_context("spawn")
    return start_server()


def _start(context: Any, run: Run, output: Path, parameters: dict[str, Any]) -> tuple[Any, Connection]:
    ours, theirs = context.Pipe(duplex=False)
    forked = context.get_start_method() == "forkserver"
    arguments = (run.path, output, parameters, run.cells, theirs, forked, dict(os.environ))
    process = context.Process(target=_execute, args=arguments)
    try:
        process.start()
    except (EOFError, OSError):  # the server was killed: restart it, and then this process
        process = context.Process(target=_execute, args=arguments)
        process.start()
    theirs.close()
    run.status, run.began = "running", time.monotonic()
    return process, ours


def _receive(run: Run, messages: Connection) -> bool:
    """Update `run` from one message of its process. Returns True after the last message."""
    try:
        message = messages.recv()
    except (EOFError, OSError):
        message = None
    match message:
        case {"cell": int(cell)}:
            run.cell = cell
        case {"kernel": int(pid)}:
            run.kernel = pid
        case {"error": error}:
            run.status, run.error = ("failed", error) if error else ("done", "")
            return True
        case _:
            run.status, run.error = "failed", ""  # `_ended` determines the cause
            return True
    return False


def _ended(run: Run, process: Any, output: Path) -> None:
    """Complete a run whose process has ended: its time, its executed copy, and the message of a kill."""
    run.seconds = time.monotonic() - run.began
    if run.status == "failed" and not run.error:
        run.error = f"{run.path.name} stopped: its process {exit_words(process.exitcode)}"
    kill_group(run.kernel)  # left behind by a killed process
    try:
        run.notebook = nbformat.read(output, as_version=4) if output.exists() else None
    except Exception as error:  # damaged: truncated, or not a notebook
        output.unlink(missing_ok=True)
        if run.status == "done":
            run.status, run.error = "failed", f"{output} cannot be read: {error}"


def _stop(busy: dict[Connection, tuple[Run, Any]]) -> None:
    """End the running processes and their kernels: first by SIGINT, then by SIGKILL.

    A process has ended when its end of the connection is closed. Unlike its exit status, that does not depend
    on the server that forked it.
    """
    left = dict(busy)
    for number in (signal.SIGINT, signal.SIGKILL):
        for _, process in left.values():
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while left and (seconds := deadline - time.monotonic()) > 0:
            for messages in wait(list(left), timeout=seconds):
                try:
                    if "kernel" in (message := messages.recv()):
                        left[messages][0].kernel = message["kernel"]
                except (EOFError, OSError):
                    del left[messages]
    for run, process in busy.values():
        kill_group(run.kernel)
        process.join(SHUTDOWN_SECONDS)


def _execute(
    path: Path,
    output: Path,
    parameters: dict[str, Any],
    cells: int,
    messages: Connection,
    forked: bool,
    environment: dict[str, str],
) -> None:
    """Run one notebook. Send its kernel's pid, each cell that starts, and at the end "" or an error text."""
    kernel = cell = None

    def launched(process: Any) -> None:
        nonlocal kernel
        kernel = process
        messages.send({"kernel": process.pid})

    def starts(index: int) -> None:
        nonlocal cell
        cell = index
        messages.send({"cell": index})

    def kernel_pid() -> int | None:
        return kernel and kernel.pid

    try:
        os.environ.update(environment)  # a server process may be older than the settings of this run
        kernel = ForkedKernel(messages) if forked else None  # before this process starts a thread
        end_kernel_when_signalled(kernel_pid)
        end_with_parent(lambda: kill_group(kernel_pid()))
        papermill.execute_notebook(
            path,
            output,
            parameters,
            engine_name=ENGINE,
            kernel_name="python3",
            cwd=path.parent,
            progress_bar=False,
            on_cell=starts,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # the kernel logs its own transport otherwise
            kernel_manager_class=kernel_manager(kernel, launched),
        )
        messages.send({"error": ""})
    except KeyboardInterrupt:  # `run_all` was interrupted too and reports it
        logging.getLogger("asyncio").disabled = True  # it would report the cell whose result is not awaited
    except Exception as error:  # from a cell, a dead kernel or a broken file
        shift = 1 if parameters else 0
        if isinstance(error, DeadKernelError) and kernel is not None:
            where = "" if cell is None else f" at cell {cell + 1 - shift} of {cells}"
            text = f"{path.name} stopped{where}: its kernel {exit_words(kernel.poll())}"
        else:
            text = _error_text(path, cells, error, shift)
        messages.send({"error": text})
    finally:
        kill_group(kernel_pid())  # with all processes that the notebook has left running


def exit_words(status: int | None) -> str:
    """Describe how a process ended, as the end of a sentence; `status` as in `subprocess.Popen`."""
    if status is not None and status < 0:
        words = f"was killed (signal {-status})"
        return f"{words}; often the machine is out of memory" if -status == signal.SIGKILL else words
    return f"was killed or ended early (exit status {status})"


def _error_text(path: Path, cells: int, error: Exception, shift: int) -> str:
    where, text = "", f"{type(error).__name__}: {error}"
    if isinstance(error, papermill.PapermillExecutionError):
        # papermill counts the parameters cell that it inserted; the source notebook does not have it.
        where = f" at cell {error.cell_index + 1 - shift} of {cells} (In [{error.exec_count}])"
        text = "\n".join(error.traceback) or f"{error.ename}: {error.evalue}"
        if error.ename in SAY_WHAT_TO_DO:
            text = f"{error.ename}: {error.evalue}"
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip().splitlines()[-TRACEBACK_LINES:]
    return "\n".join([f"{path.name} stopped{where}:", *("    " + line for line in lines)])
