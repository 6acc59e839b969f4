"""How far a run of notebooks is: on a terminal one line, rewritten every second; elsewhere a line for each
start and end.

The time left is the notebooks' own estimate (`metadata.caft.minutes`) at the pace so far:

    left = (planned - done) * elapsed / done      where done counts the running notebooks' cells pro rata.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import nbformat


@dataclass(eq=False)
class Run:
    """One notebook of a tutorial run. status: "waiting", "running", "done" or "failed"."""

    path: Path
    title: str
    minutes: float  # the notebook's own estimate
    cells: int
    status: str = "waiting"
    cell: int = 0  # the running cell's index
    began: float = 0.0  # of time.monotonic
    seconds: float = 0.0
    notebook: nbformat.NotebookNode | None = field(default=None, repr=False)  # executed; partial when failed
    error: str = ""

    @classmethod
    def of(cls, path: Path) -> Run:
        notebook = nbformat.read(path, as_version=4)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        title = re.search(r"^# +(.+)$", text, re.MULTILINE)
        minutes = notebook.metadata.get("caft", {}).get("minutes", 1.0)
        return cls(path, title[1].strip() if title else path.stem, float(minutes), len(notebook.cells))

    @property
    def share(self) -> float:
        """How much of the notebook is done, from 0 to 1, by cells."""
        if self.status == "running":
            return min(1.0, self.cell / max(1, self.cells))
        return float(self.status in ("done", "failed"))


def minutes_of(runs: list[Run]) -> float:
    """Minutes from the first notebook's start to the last one's end."""
    ran = [run for run in runs if run.seconds]
    return (max(run.began + run.seconds for run in ran) - min(run.began for run in ran)) / 60 if ran else 0.0


class Progress:
    """Tells of `runs`, `jobs` of them at a time, on `stream`; a context that ends its line on the way out."""

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
            self.stream.write("\r\x1b[K")

    def started(self, run: Run) -> None:
        if not self.live:
            print(f"{self._place(run):<36} started, {self._times()}", file=self.stream, flush=True)

    def finished(self, run: Run) -> None:
        clear = "\r\x1b[K" if self.live else ""
        text = f"{clear}{self._place(run):<36} {run.status} in {clock(run.seconds)}"
        print(text, file=self.stream, flush=True)

    def line(self) -> str:
        running = [run for run in self.runs if run.status == "running"]
        cells = [f"{self._place(run)} cell {min(run.cell + 1, run.cells)} of {run.cells}" for run in running]
        return "  ".join([*cells, self._times()])

    def left(self, elapsed: float) -> float:
        """Seconds that are left, estimated; the plan alone speaks until a twentieth of it is done."""
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
            self.stream.write("\r" + self.line() + "\x1b[K")
            self.stream.flush()


def clock(seconds: float) -> str:
    """Minutes and seconds, as 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
