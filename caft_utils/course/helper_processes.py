"""Measure one experiment in several processes that share the store.

Studies go through their cells with `Store.shared`, so a second process that measures the same experiment
takes the cells that the first one has not begun. The first one then reads them. A helper prints nothing and
returns nothing: what it has stored is its work. If it dies, the first process measures the rest.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from caft_utils.arguments import whole
from caft_utils.child_processes import end_with_parent
from caft_utils.course.studies.experiment import ONE_PROCESS, Experiment, run


@contextmanager
def helpers(
    experiment: Experiment, processes: int, measure: Callable[[Experiment], object] = run
) -> Iterator[None]:
    """Let `processes` - 1 other processes measure the same experiment until the block ends.

    All of them, this one included, share the cores.

    Args:
        processes: how many there are with this one.
        measure: what a helper does.

    Raises:
        ValueError: `processes` is no whole number of at least 1, or is above 1 for a study that runs in one
            process because it takes times or starts processes of its own.
    """
    if whole("processes", processes, 1) == 1:
        yield
        return
    if experiment.study in ONE_PROCESS:
        raise ValueError(f"study {experiment.study!r} runs in one process; got processes={processes}")
    import torch

    before, threads = torch.get_num_threads(), max(1, (os.cpu_count() or 1) // processes)
    context = multiprocessing.get_context("spawn")
    arguments = (measure, experiment, threads)
    started = [context.Process(target=_help, args=arguments, daemon=True) for _ in range(processes - 1)]
    torch.set_num_threads(threads)
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.kill()  # all that it could still do is done
            process.join()
        torch.set_num_threads(before)


def _help(measure: Callable[[Experiment], object], experiment: Experiment, threads: int) -> None:
    end_with_parent()
    os.environ["TQDM_DISABLE"] = "1"
    import torch

    torch.set_num_threads(threads)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        measure(experiment)
