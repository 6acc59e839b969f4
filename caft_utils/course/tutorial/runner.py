"""Execute notebooks in order, some side by side, with papermill, and say all the while how far they are.

Each notebook runs in a process and a kernel of its own and writes its executed copy after every cell, so a
failure or Ctrl-C leaves what ran. Notebooks share what they train through the store: where two want the same
artefact at the same time, one makes it and the other waits for it.
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

from caft_utils.course.tutorial.progress import Progress, Run

LAST_LINES = 15
PATIENCE = 10  # seconds that an interrupted notebook has to shut down its kernel


def run_all(
    paths: list[Path],
    out: Path,
    parameters: dict,
    *,
    jobs: int = 1,
    stream: TextIO | None = None,
    finished: Callable[[Run, list[Run]], None] = lambda run, runs: None,
) -> list[Run]:
    """Start the notebooks in the given order, `jobs` at a time; none any more after a failure, which is told
    in that `Run.error`.

    out: folder for the executed copies; parameters: values for the cell tagged `parameters`; finished: called
    after each notebook with it and all of them.
    """
    runs = [Run.of(path) for path in paths]
    out.mkdir(parents=True, exist_ok=True)
    for run in runs:  # nothing of an earlier run stands beside this one's
        for suffix in (".ipynb", ".html"):
            (out / run.path.stem).with_suffix(suffix).unlink(missing_ok=True)
    waiting, busy = list(runs), {}
    with Progress(runs, jobs, stream or sys.stderr) as progress:
        try:
            while waiting or busy:
                while waiting and len(busy) < jobs:
                    run = waiting.pop(0)
                    process, said = _start(run, out / run.path.name, parameters)
                    busy[said] = run, process
                    progress.started(run)
                for said in wait(list(busy)):
                    run, process = busy[said]
                    if not _heard(run, said):
                        continue
                    process.join()
                    del busy[said]
                    output = out / run.path.name
                    run.notebook = nbformat.read(output, as_version=4) if output.exists() else None
                    progress.finished(run)
                    finished(run, runs)
                    if run.status == "failed":
                        waiting.clear()
        finally:
            _stop([process for _, process in busy.values()])
    return runs


def _start(run: Run, output: Path, parameters: dict) -> tuple[Any, Connection]:
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_execute, args=(run.path, output, parameters, run.cells, theirs))
    process.start()
    theirs.close()
    run.status, run.began = "running", time.monotonic()
    return process, ours


def _heard(run: Run, said: Connection) -> bool:
    """Take in what a notebook's process says; True when it was the last word."""
    try:
        word = said.recv()
    except EOFError:
        word = f"{run.path.name} stopped: its process was killed (out of memory?)"
    if isinstance(word, int):
        run.cell = word
        return False
    run.status, run.error = ("failed", word) if word else ("done", "")
    run.seconds = time.monotonic() - run.began
    return True


def _stop(processes: list) -> None:
    """End what still runs after Ctrl-C: each has had the signal from the terminal, or gets it from here."""
    for ask in (None, signal.SIGINT, signal.SIGKILL):
        for process in processes:
            if ask and process.is_alive():
                os.kill(process.pid, ask)
        deadline = time.monotonic() + PATIENCE / 2
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))


def _execute(path: Path, output: Path, parameters: dict, cells: int, said: Connection) -> None:
    """In a process of its own: says the index of each cell that starts, at the end "" or what went wrong."""
    try:
        papermill.execute_notebook(
            path,
            output,
            parameters,
            engine_name="caft",
            kernel_name="python3",
            cwd=path.parent,
            progress_bar=False,
            on_cell=said.send,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # the kernel's chat about its own transport
        )
        said.send("")
    except KeyboardInterrupt:
        return  # the one who asked for it tells
    except Exception as error:  # a cell's own, a dead kernel, a broken file: told in one way
        said.send(_told(path, cells, error, shift=1 if parameters else 0))


def _told(path: Path, cells: int, error: Exception, shift: int) -> str:
    where, text = "", f"{type(error).__name__}: {error}"
    if isinstance(error, papermill.PapermillExecutionError):
        # papermill counts the cell of parameters that it put in; a reader of the source does not have it.
        where = f" at cell {error.cell_index + 1 - shift} of {cells} (In [{error.exec_count}])"
        text = "\n".join(error.traceback) or f"{error.ename}: {error.evalue}"
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip().splitlines()[-LAST_LINES:]
    return "\n".join([f"{path.name} stopped{where}:", *("    " + line for line in lines)])


class _Engine(NBClientEngine):
    """papermill's own engine, telling which cell it starts."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, on_cell=None, **options):
        cell_start = nb_man.cell_start

        def start(cell, cell_index=None, **more):
            on_cell(cell_index)
            return cell_start(cell, cell_index, **more)

        nb_man.cell_start = start
        return super().execute_managed_notebook(nb_man, kernel_name, **options)


papermill_engines.register("caft", _Engine)
