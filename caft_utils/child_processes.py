"""Start processes that end with their parent.

A process that is killed cannot stop its children, which would continue to compute uselessly. Each child
therefore watches a pipe whose other end only its parent holds. The system closes that end when the parent
ends, for whatever reason.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any, TypeVar

Result = TypeVar("Result")


def end_with_parent(before: Callable[[], object] = lambda: None) -> None:
    """Make this process, a child of `multiprocessing`, end at once when its parent has ended.

    Args:
        before: called just before, to end what this process has started itself.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])
        try:
            before()
        finally:
            os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True, name="watches the parent").start()


def kill_group(leader: int | None) -> None:
    """Kill the process `leader` and all processes of the group that it leads, if there still are any."""
    if leader is None or not hasattr(os, "killpg"):
        return
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS answers with the second if all of them are zombies
        pass


def run_in_new_process(function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """Return `function(*arguments, **options)`, computed in a fresh process with a heap of its own.

    The process ends when this one does, or when it is interrupted.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent)
    with pool:
        future = pool.submit(function, *arguments, **options)
        try:
            return future.result()
        except KeyboardInterrupt:
            for process in list(pool._processes.values()):
                process.kill()  # otherwise the pool would wait until it has computed its result
            raise
