"""Handle the signals that end a run of notebooks with all of its processes.

The runner starts executors, and each executor starts a kernel in its own session, which signals of the
terminal do not reach. Ctrl-C, SIGTERM and a closed terminal (SIGHUP) interrupt the runner, which then ends
its executors. An executor ends its kernel first, both after a signal and when its runner has died.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from caft_utils.child_processes import kill_group

DEADLY = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


class Stopped(KeyboardInterrupt):
    """The runner got the signal `number`."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` in the main thread at the first SIGTERM or SIGHUP and at every SIGINT of this block.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored.
    """
    seen: set[int] = set()

    def stop(number: int, frame: FrameType | None) -> None:
        # A shell sends SIGHUP twice. The second one must not interrupt the shutdown that the first one
        # started.
        if number == signal.SIGINT or not seen:
            seen.add(number)
            raise Stopped(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [number for number in DEADLY if signal.getsignal(number) == signal.SIG_DFL]
        if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
            numbers.append(signal.SIGINT)
        before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_kernel_when_signalled(kernel: Callable[[], int | None]) -> None:
    """Make this executor raise KeyboardInterrupt at its first SIGINT, and end with its kernel at SIGTERM.

    Later SIGINTs are ignored, because terminal and runner both send one while the kernel shuts down.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    def end(number: int, frame: FrameType | None) -> None:
        kill_group(kernel())
        os._exit(128 + number)

    signal.signal(signal.SIGINT, interrupt)
    for number in DEADLY:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent, the process `parent`, ends; elsewhere do nothing."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the request
        os.kill(os.getpid(), signal.SIGKILL)
