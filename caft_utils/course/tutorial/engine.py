"""Extend papermill's engine: report each cell, and save the executed copy less often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from papermill.engines import NBClientEngine, papermill_engines
from papermill.iorw import papermill_io

from caft_utils.course.early_end import LessonEnds, end_page
from caft_utils.disk import write_atomically

ENGINE = "caft"
SAVE_SHARE = 0.1  # largest share of the time that goes into saving the executed copy during a run


class _Engine(NBClientEngine):
    """papermill's engine, with a callback that gets the index of each cell that starts, and fewer saves.

    A cell that raises `LessonEnds` ends the notebook, which counts as done.

    papermill writes the whole copy, including megabytes of figures, before and after each cell. That takes
    more time than most cells whose results are stored. A skipped save is made as soon as it is due, even
    while a cell runs. A notebook that is killed in a long cell therefore keeps the outputs of earlier cells.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, on_cell=None, **options):
        cell_start, complete = nb_man.cell_start, nb_man.notebook_complete
        failed, saves = nb_man.cell_exception, _Saves(nb_man.save)

        def start(cell, cell_index=None, **more):
            on_cell(cell_index)
            return cell_start(cell, cell_index, **more)

        def exception(cell, cell_index=None, exception=None, **more):
            if getattr(exception, "ename", None) == LessonEnds.__name__:
                end_page(nb_man.nb, cell_index)
            else:
                failed(cell, cell_index, exception=exception, **more)

        def complete_and_save(**more):  # called after a failure too
            nb_man.save = saves.save
            complete(**more)

        nb_man.cell_start, nb_man.cell_exception = start, exception
        nb_man.save, nb_man.notebook_complete = saves.save_if_due, complete_and_save
        return super().execute_managed_notebook(
            nb_man, kernel_name, on_cell_execute=saves.save_when_due, **options
        )


class _Saves:
    """Limits the calls of `save` to `SAVE_SHARE` of the time."""

    def __init__(self, save: Callable[..., None]):
        self.save = save
        self.due = 0.0
        self.skipped = False

    def save_if_due(self, **options: Any) -> None:
        if time.monotonic() < self.due:
            self.skipped = True
        else:
            self._save(**options)

    def save_when_due(self, **_: Any) -> None:
        """Schedule the skipped save in the event loop that runs the cell."""
        if self.skipped:
            asyncio.get_running_loop().call_later(self.due - time.monotonic(), self._make_up)

    def _make_up(self) -> None:
        if self.skipped:
            self._save()

    def _save(self, **options: Any) -> None:
        began = time.monotonic()
        self.save(**options)
        ended = time.monotonic()
        self.skipped, self.due = False, ended + (ended - began) / SAVE_SHARE


papermill_engines.register(ENGINE, _Engine)
# Write atomically, because a kill during the write would otherwise truncate the copy.
papermill_io.get_handler("local").write = lambda text, path: write_atomically(path, text, flushed=False)
