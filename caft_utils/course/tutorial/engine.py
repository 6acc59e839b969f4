"""papermill's engine for the course: it tells which cell starts, and saves the executed copy less often."""

from __future__ import annotations

import time

from papermill.engines import NBClientEngine, papermill_engines
from papermill.iorw import papermill_io

from caft_utils.disk import write_atomically

ENGINE = "caft"
SAVE_SHARE = 0.1  # of the time, at most, goes into saving the executed copy while it runs


class _Engine(NBClientEngine):
    """papermill's engine, with a callback that gets the index of each cell that starts, and fewer saves.

    papermill writes the whole copy, megabytes of figures, before and after each cell. That takes more time
    than most cells whose results are stored.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, on_cell=None, **options):
        cell_start, save, complete = nb_man.cell_start, nb_man.save, nb_man.notebook_complete
        saved = cost = 0.0

        def start(cell, cell_index=None, **more):
            on_cell(cell_index)
            return cell_start(cell, cell_index, **more)

        def save_now_and_then(**more):
            nonlocal saved, cost
            began = time.monotonic()
            if cost <= SAVE_SHARE * (began - saved):
                save(**more)
                saved = time.monotonic()
                cost = saved - began

        def complete_and_save(**more):  # also called after a failure
            nb_man.save = save
            complete(**more)

        nb_man.cell_start, nb_man.save, nb_man.notebook_complete = start, save_now_and_then, complete_and_save
        return super().execute_managed_notebook(nb_man, kernel_name, **options)


papermill_engines.register(ENGINE, _Engine)
# A copy that is killed while it is written would otherwise be cut short.
papermill_io.get_handler("local").write = lambda text, path: write_atomically(path, text, flushed=False)
