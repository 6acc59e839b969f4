"""Measure one experiment in several processes that share the store.

A study of `SHARED` goes through its parts so that a second process, which measures the same experiment,
takes those that the first one has not begun. The first one reads their results from the store. A helper
returns nothing; its work is what it stores. It shows no output except the error that ends it, after which the
first process measures the rest.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from caft_utils.arguments import whole
from caft_utils.child_processes import end_with_parent
from caft_utils.course.studies.experiment import SHARED, Experiment, run
from caft_utils.finetuning import processes as launched


@contextmanager
def helpers(
    experiment: Experiment, processes: int, measure: Callable[[Experiment], object] = run
) -> Iterator[None]:
    """Let `processes` - 1 other processes measure the same experiment until the block ends.

    All of them, this one included, share this process's threads.

    Args:
        processes: how many there are with this one.
        measure: what a helper does.

    Raises:
        ValueError: `processes` is no whole number of at least 1; or it is above 1 and the study is not one of
            `SHARED`, or a launcher has started several processes already.
    """
    if whole("processes", processes, 1) == 1:
        yield
        return
    if experiment.study not in SHARED:
        raise ValueError(f"study {experiment.study!r} runs in one process; got processes={processes}")
    if not launched.is_alone():
        raise ValueError(f"{launched.count()} processes run already; got processes={processes} for each")
    import torch

    context = multiprocessing.get_context("spawn")
    before, started = torch.get_num_threads(), []
    threads = max(1, before // processes)
    try:
        torch.set_num_threads(threads)
        for _ in range(processes - 1):
            process = context.Process(target=_help, args=(measure, experiment, threads), daemon=True)
            process.start()
            started.append(process)
        yield
    finally:
        for process in started:
            process.kill()  # what it has stored is whole
            process.join()
        torch.set_num_threads(before)


def _help(measure: Callable[[Experiment], object], experiment: Experiment, threads: int) -> None:
    end_with_parent()
    import torch

    torch.set_num_threads(threads)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        measure(experiment)
