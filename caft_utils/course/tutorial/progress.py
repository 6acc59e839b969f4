"""Report the progress of a run of notebooks.

On a terminal one line is rewritten every second. Elsewhere each start and each end gets a line. The time left
scales the notebooks' own estimates (`metadata.caft.minutes`) by the pace so far:

    left = (planned - done) * elapsed / done

where `done` includes running notebooks in proportion to their finished cells.
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import nbformat


@dataclass(eq=False)
class Run:
    """One notebook of a tutorial run.

    status: "waiting", "running", "done" or "failed". minutes: the notebook's own estimate. reuses: numbers of
    the notebooks whose stored artefacts it reads. cell: index of the running cell. began: time.monotonic() at
    the start. notebook: the executed copy, partial after a failure. kernel: process id of its kernel.
    """

    path: Path
    title: str
    minutes: float
    cells: int
    reuses: tuple[str, ...] = ()
    status: str = "waiting"
    cell: int = 0
    began: float = 0.0
    seconds: float = 0.0
    notebook: nbformat.NotebookNode | None = field(default=None, repr=False)
    error: str = ""
    kernel: int | None = None

    @classmethod
    def of(cls, path: Path) -> Run:
        """Read the title and the estimated minutes of a notebook."""
        notebook = nbformat.read(path, as_version=4)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        title = re.search(r"^# +(.+)$", text, re.MULTILINE)
        title = title[1].strip() if title else path.stem
        caft = notebook.metadata.get("caft", {})
        reuses = tuple(caft.get("reuses", ()))
        return cls(path, title, float(caft.get("minutes", 1.0)), len(notebook.cells), reuses)

    @property
    def share(self) -> float:
        """Return the share of cells that have run, from 0 to 1."""
        if self.status == "running":
            return min(1.0, self.cell / max(1, self.cells))
        return float(self.status in ("done", "failed"))


def minutes_of(runs: list[Run]) -> float:
    """Return the minutes from the first start to the last end."""
    ran = [run for run in runs if run.seconds]
    return (max(run.began + run.seconds for run in ran) - min(run.began for run in ran)) / 60 if ran else 0.0


class Progress:
    """Reports the progress of `runs`, `jobs` at a time, to `stream`. Use it as a context manager."""

    def __init__(self, runs: list[Run], jobs: int, stream: TextIO):
        self.runs, self.jobs, self.stream, self.live = runs, jobs, stream, stream.isatty()
        self.began = time.monotonic()
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
            self._write("\r\x1b[K")

    def started(self, run: Run) -> None:
        """Report that a notebook started."""
        if not self.live:
            self._write(f"{self._place(run):<36} started, {self._times()}\n")

    def finished(self, run: Run) -> None:
        """Report that a notebook ended."""
        clear = "\r\x1b[K" if self.live else ""
        self._write(f"{clear}{self._place(run):<36} {run.status} in {clock(run.seconds)}\n")

    def line(self) -> str:
        """Return the line for a terminal: running cells, time elapsed and time left."""
        running = [run for run in self.runs if run.status == "running"]
        cells = [f"{self._place(run)} cell {min(run.cell + 1, run.cells)} of {run.cells}" for run in running]
        return "  ".join([*cells, self._times()])

    def left(self, elapsed: float) -> float:
        """Estimate the seconds left. Uses only the plan until a twentieth of it is done."""
        planned = 60 * sum(run.minutes for run in self.runs)
        done = 60 * sum(run.minutes * run.share for run in self.runs)
        if done < planned / 20:
            return max(0.0, planned / self.jobs - elapsed)
        return (planned - done) * elapsed / done

    def _times(self) -> str:
        elapsed = time.monotonic() - self.began
        return f"{clock(elapsed)} elapsed, about {clock(self.left(elapsed))} left"

    def _place(self, run: Run) -> str:
        return f"[{self.runs.index(run) + 1}/{len(self.runs)}] {run.path.stem}"

    def _tick(self) -> None:
        while not self.over.wait(1.0):
            self._write("\r" + self.line() + "\x1b[K")

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the terminal was closed; the run has to go on to its end
            self.stream.write(text)
            self.stream.flush()


def clock(seconds: float) -> str:
    """Return minutes and seconds, as "3:07"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
