"""An experiment whose cells only say which process measured them."""

from __future__ import annotations

import os
import time

import torch

from caft_utils.store import default_store

CELLS = 6


def measure(experiment) -> list[dict]:
    """Return a row per cell with the process that measured it and its threads; a cell takes 0.3 seconds."""

    def write(folder):
        time.sleep(0.3)
        (folder / "value.txt").write_text(f"{os.getpid()} {torch.get_num_threads()}")

    def key(cell):
        return {"study": experiment.study, "cell": cell}

    store, rows = default_store(), []
    print("a helper's words are not shown")
    for cell in store.shared(range(CELLS), "toy", key):
        process, threads = (store.fetch("toy", key(cell), write) / "value.txt").read_text().split()
        rows.append({"cell": cell, "process": int(process), "threads": int(threads)})
    return rows


def fail(experiment) -> None:
    raise RuntimeError("a helper that fails")
