"""Execute notebooks in order, some side by side, with papermill, and report progress.

Each notebook runs in a process and a kernel of its own. Its executed copy is written after every cell, so
what ran before a failure or Ctrl-C is kept. Notebooks share what they train through the store. If two need
the same artefact at the same time, one makes it and the other waits.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
from papermill.engines import NBClientEngine, papermill_engines

from caft_utils.course.tutorial.forked_kernel import (
    ForkedKernel,
    can_fork_kernels,
    kernel_manager,
    start_server,
)
from caft_utils.course.tutorial.progress import Progress, Run

TRACEBACK_LINES = 15
SHUTDOWN_SECONDS = 5  # that an interrupted notebook has to shut down its kernel, before each harder signal


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
    """Start the notebooks in the given order, `jobs` at a time.

    After a failure no further notebook is started; the failed `Run.error` says what happened.

    Args:
        paths: the notebooks.
        out: folder for the executed copies.
        parameters: values for the cell tagged `parameters`.
        stream: where progress is reported (default: standard error).
        finished: called after each notebook with it and all of them.
        fork_kernels: import the libraries once and fork every kernel, see forked_kernel.py.
    """
    runs = [Run.of(path) for path in paths]
    out.mkdir(parents=True, exist_ok=True)
    for run in runs:  # no page of an earlier run stays beside the new ones
        for suffix in (".ipynb", ".html"):
            (out / run.path.stem).with_suffix(suffix).unlink(missing_ok=True)
    context = _context(fork_kernels)
    waiting, busy = list(runs), {}
    with Progress(runs, jobs, stream or sys.stderr) as progress:
        try:
            while waiting or busy:
                while waiting and len(busy) < jobs:
                    run = waiting.pop(0)
                    process, messages = _start(context, run, out / run.path.name, parameters)
                    busy[messages] = run, process
                    progress.started(run)
                for messages in wait(list(busy)):
                    run, process = busy[messages]
                    if not _receive(run, messages):
                        continue
                    process.join()
                    del busy[messages]
                    output = out / run.path.name
                    run.notebook = nbformat.read(output, as_version=4) if output.exists() else None
                    progress.finished(run)
                    finished(run, runs)
                    if run.status == "failed":
                        waiting.clear()
        finally:
            _stop([process for _, process in busy.values()])
    return runs


def _context(fork_kernels: bool) -> Any:
    """Return how executors start. They never fork from this process, whose threads a fork would break."""
    if not (fork_kernels and can_fork_kernels()):
        return multiprocessing.get_context("spawn")
    return start_server()


def _start(context: Any, run: Run, output: Path, parameters: dict[str, Any]) -> tuple[Any, Connection]:
    ours, theirs = context.Pipe(duplex=False)
    forked = context.get_start_method() == "forkserver"
    arguments = (run.path, output, parameters, run.cells, theirs, forked, dict(os.environ))
    process = context.Process(target=_execute, args=arguments)
    process.start()
    theirs.close()
    run.status, run.began = "running", time.monotonic()
    return process, ours


def _receive(run: Run, messages: Connection) -> bool:
    """Update `run` by one message of its process; return True when it was the last one."""
    try:
        message = messages.recv()
    except EOFError:
        message = f"{run.path.name} stopped: its process was killed (out of memory?)"
    if isinstance(message, int):
        run.cell = message
        return False
    run.status, run.error = ("failed", message) if message else ("done", "")
    run.seconds = time.monotonic() - run.began
    return True


def _stop(processes: list[Any]) -> None:
    """End what still runs after Ctrl-C. A terminal has signalled the processes already; otherwise we do."""
    for number in (None, signal.SIGINT, signal.SIGKILL):
        for process in processes:
            if number and process.is_alive():
                os.kill(process.pid, number)
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))


def _execute(
    path: Path,
    output: Path,
    parameters: dict[str, Any],
    cells: int,
    messages: Connection,
    forked: bool,
    environment: dict[str, str],
) -> None:
    """Run one notebook. Send the index of each cell that starts, and at the end "" or an error text."""
    options: dict[str, Any] = {}
    try:
        os.environ.update(environment)  # a server process may be older than the settings of this run
        if forked:
            options["kernel_manager_class"] = kernel_manager(ForkedKernel(messages))
        papermill.execute_notebook(
            path,
            output,
            parameters,
            engine_name="caft",
            kernel_name="python3",
            cwd=path.parent,
            progress_bar=False,
            on_cell=messages.send,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # the kernel logs its own transport otherwise
            **options,
        )
        messages.send("")
    except KeyboardInterrupt:
        return  # `run_all` was interrupted too and reports it
    except Exception as error:  # from a cell, a dead kernel or a broken file
        messages.send(_error_text(path, cells, error, shift=1 if parameters else 0))


def _error_text(path: Path, cells: int, error: Exception, shift: int) -> str:
    where, text = "", f"{type(error).__name__}: {error}"
    if isinstance(error, papermill.PapermillExecutionError):
        # papermill counts the cell of parameters that it inserted; the source does not have it.
        where = f" at cell {error.cell_index + 1 - shift} of {cells} (In [{error.exec_count}])"
        text = "\n".join(error.traceback) or f"{error.ename}: {error.evalue}"
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip().splitlines()[-TRACEBACK_LINES:]
    return "\n".join([f"{path.name} stopped{where}:", *("    " + line for line in lines)])


class _Engine(NBClientEngine):
    """papermill's engine, with a callback that gets the index of each cell that starts."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, on_cell=None, **options):
        cell_start = nb_man.cell_start

        def start(cell, cell_index=None, **more):
            on_cell(cell_index)
            return cell_start(cell, cell_index, **more)

        nb_man.cell_start = start
        return super().execute_managed_notebook(nb_man, kernel_name, **options)


papermill_engines.register("caft", _Engine)
