"""Execute notebooks in order with papermill and say, all the while, how far it is.

Each notebook gets a kernel of its own and writes its executed copy after every cell, so a failure or Ctrl-C
leaves what ran. The time left is the notebooks' own estimate (`metadata.caft.minutes`) at the pace so far:

    left = (planned - done) * elapsed / done      where done counts the running notebook's cells pro rata.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import nbformat
import papermill
from papermill.engines import NBClientEngine, papermill_engines

LAST_LINES = 15


@dataclass
class Run:
    """One notebook of a tutorial run. status: "waiting", "running", "done" or "failed"."""

    path: Path
    title: str
    minutes: float  # the notebook's own estimate
    cells: int
    status: str = "waiting"
    seconds: float = 0.0
    notebook: nbformat.NotebookNode | None = None  # the executed copy, partial when failed
    error: str = ""

    @classmethod
    def of(cls, path: Path) -> Run:
        notebook = nbformat.read(path, as_version=4)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        title = re.search(r"^# +(.+)$", text, re.MULTILINE)
        minutes = notebook.metadata.get("caft", {}).get("minutes", 1.0)
        return cls(path, title[1].strip() if title else path.stem, float(minutes), len(notebook.cells))


def run_all(
    paths: list[Path],
    out: Path,
    parameters: dict,
    *,
    stream: TextIO | None = None,
    finished: Callable[[Run, list[Run]], None] = lambda run, runs: None,
) -> list[Run]:
    """Run the notebooks in the given order; the first failure ends the run and is told in that `Run.error`.

    out: folder for the executed copies; parameters: values for the cell tagged `parameters`; finished: called
    after each notebook with it and all of them.
    """
    runs = [Run.of(path) for path in paths]
    out.mkdir(parents=True, exist_ok=True)
    for run in runs:  # nothing of an earlier run stands beside this one's
        for suffix in (".ipynb", ".html"):
            (out / run.path.stem).with_suffix(suffix).unlink(missing_ok=True)
    with Progress(runs, stream or sys.stderr) as progress:
        for number, run in enumerate(runs):
            progress.start(number)
            began = time.monotonic()
            run.status = "running"
            _execute(run, out / run.path.name, parameters, progress.cell)
            run.seconds = time.monotonic() - began
            progress.finish()
            finished(run, runs)
            if run.status == "failed":
                break
    return runs


def _execute(run: Run, output: Path, parameters: dict, on_cell: Callable[[int], None]) -> None:
    try:
        run.notebook = papermill.execute_notebook(
            run.path,
            output,
            parameters,
            engine_name="caft",
            kernel_name="python3",
            cwd=run.path.parent,
            progress_bar=False,
            on_cell=on_cell,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # the kernel's chat about its own transport
        )
        run.status = "done"
    except Exception as error:  # a cell's own, a dead kernel, a broken file: told in one way
        run.status = "failed"
        run.notebook = nbformat.read(output, as_version=4) if output.exists() else None
        run.error = _told(run, error, shift=1 if parameters else 0)


def _told(run: Run, error: Exception, shift: int) -> str:
    where, text = "", f"{type(error).__name__}: {error}"
    if isinstance(error, papermill.PapermillExecutionError):
        # papermill counts the cell of parameters that it put in; a reader of the source does not have it.
        where = f" at cell {error.cell_index + 1 - shift} of {run.cells} (In [{error.exec_count}])"
        text = "\n".join(error.traceback) or f"{error.ename}: {error.evalue}"
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip().splitlines()[-LAST_LINES:]
    return "\n".join([f"{run.path.name} stopped{where}:", *("    " + line for line in lines)])


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


class Progress:
    """One line, rewritten every second, on a terminal; elsewhere (a log) one line a notebook."""

    def __init__(self, runs: list[Run], stream: TextIO):
        self.runs, self.stream, self.live = runs, stream, stream.isatty()
        self.number, self.index, self.began = 0, 0, time.monotonic()
        self.over = threading.Event()
        self.ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Progress:
        self.began = time.monotonic()
        if self.live:
            self.ticker.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        if self.live:
            self.ticker.join()
            self.stream.write("\r\x1b[K")

    def start(self, number: int) -> None:
        self.number, self.index = number, 0
        if not self.live:
            print(self.line(), file=self.stream, flush=True)

    def cell(self, index: int) -> None:
        self.index = index

    def finish(self) -> None:
        run = self.runs[self.number]
        clear = "\r\x1b[K" if self.live else ""
        text = f"{clear}{self._place():<36} {run.status} in {_clock(run.seconds)}"
        print(text, file=self.stream, flush=True)

    def line(self) -> str:
        run, elapsed = self.runs[self.number], time.monotonic() - self.began
        cell = f"cell {min(self.index + 1, run.cells)} of {run.cells}"
        return f"{self._place()}  {cell}  {_clock(elapsed)} elapsed, about {_clock(self.left(elapsed))} left"

    def _place(self) -> str:
        return f"[{self.number + 1}/{len(self.runs)}] {self.runs[self.number].path.stem}"

    def left(self, elapsed: float) -> float:
        """Seconds that are left, estimated; the plan alone speaks until a twentieth of it is done."""
        planned = 60 * sum(run.minutes for run in self.runs)
        current = self.runs[self.number]
        before = sum(run.minutes for run in self.runs[: self.number])
        done = 60 * (before + current.minutes * min(1.0, self.index / max(1, current.cells)))
        if done < planned / 20:
            return max(0.0, planned - elapsed)
        return (planned - done) * elapsed / done

    def _tick(self) -> None:
        while not self.over.wait(1.0):
            self.stream.write("\r" + self.line() + "\x1b[K")
            self.stream.flush()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
