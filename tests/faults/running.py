"""Run a target: a fresh folder and a generator of its own for every try, a limit of time, a log of outcomes.

A target is a function `(home) -> attempt`, which prepares what all tries share in the folder `home`, and
`attempt(rng, folder) -> Outcome` makes one fault. The number of a try and the seed determine its fault. The
folder of a try that fails is kept, so its input can be looked at and tried again.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from faults.outcomes import NEVER, Hung, Outcome

Attempt = Callable[[Random, Path], Outcome]
Target = Callable[[Path], Attempt]
LIMIT = 120.0  # seconds of one try; a busy machine needs a few
PR_SET_PDEATHSIG = 1
KEPT = 25  # folders of failures that are kept for each target
FORK = multiprocessing.get_context("fork")  # what the harness has imported is there at once


def run_target(
    name: str,
    target: Target,
    out: Path,
    *,
    seed: int,
    seconds: float = float("inf"),
    tries: int | None = None,
    only: int | None = None,
) -> Counter:
    """Make faults until the time or the number of tries is up, and return the counts by kind of outcome."""
    started, counts = time.monotonic(), Counter()
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    home = folder / "home"
    home.mkdir(parents=True)
    with (folder / "log.jsonl").open("w") as log:
        try:
            attempt = target(home)
        except Exception:
            attempt = _broken(traceback.format_exc(limit=-4))
            tries = 1
        numbers: Iterator[int] = (
            iter([only]) if only is not None else iter(range(10**9 if tries is None else tries))
        )
        for number in numbers:
            if time.monotonic() - started > seconds and counts:
                break
            work = folder / f"try-{number}"
            work.mkdir()
            outcome = _one(attempt, Random(f"{seed} {name} {number}"), work)
            counts[outcome.kind] += 1
            log.write(json.dumps({"try": number, "kind": outcome.kind, "detail": outcome.detail}) + "\n")
            log.flush()
            bad = outcome.kind in (*NEVER, "raw")
            if not bad or sum(counts[kind] for kind in (*NEVER, "raw")) > KEPT:
                shutil.rmtree(work, ignore_errors=True)
            if outcome.kind == "skipped":
                break
    shutil.rmtree(home, ignore_errors=True)
    return counts


def _one(attempt: Attempt, rng: Random, work: Path) -> Outcome:
    try:
        with time_limit(LIMIT):
            return attempt(rng, work)
    except Hung:
        return Outcome("hung", f"no end in {LIMIT:.0f} s")
    except Exception:
        return Outcome("broken", traceback.format_exc(limit=-4)[-1500:])
    finally:
        for child in multiprocessing.active_children():  # of a try that was cut short
            child.kill()
            child.join()


def _broken(detail: str) -> Attempt:
    return lambda rng, work: Outcome("broken", detail[-1500:])


def end_with_parent() -> None:
    """Let the system kill this process when its parent dies, where the system can (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `Hung` in the main thread when the block takes too long."""

    def stop(*_):
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Child:
    """A function that runs in a forked process and leaves its result, or its error, in `folder`.

    Its output goes into files there, so that nothing of a killed process reaches the terminal.
    """

    def __init__(
        self, function: Callable[..., Any], *args: Any, folder: Path, before: Callable[[], None] = int
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "result.json").unlink(missing_ok=True)
        self.process = FORK.Process(target=_in_child, args=(function, args, folder, before))
        self.process.start()

    def kill_after(self, seconds: float) -> None:
        self.process.join(max(0.0, seconds))
        self.kill()

    def kill(self) -> None:
        if self.process.is_alive():
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def result(self, limit: float) -> Any:
        """Return what the function returned.

        Raises:
            ChildError: it raised, or ended without a word. TimeoutError: it took too long and was killed.
        """
        self.process.join(limit)
        if self.process.is_alive():
            self.kill()
            raise TimeoutError(f"no end in {limit:.0f} s")
        try:
            answer = json.loads((self.folder / "result.json").read_text())
        except (OSError, ValueError):
            raise ChildError(f"the process ended with status {self.process.exitcode}", "", {}) from None
        if "error" in answer:
            raise ChildError(answer["text"], answer["error"], answer)
        return answer["value"]


class ChildError(Exception):
    """An error of a child: its text, the name of its class and how it was judged ("ours")."""

    def __init__(self, text: str, error: str, answer: dict[str, Any]):
        super().__init__(text)
        self.error, self.answer = error, answer

    def outcome(self) -> str:
        return f"{self.error}: {str(self)[:300]}"


def _in_child(function, args, folder: Path, before: Callable[[], None]) -> None:
    from faults.outcomes import refusal

    end_with_parent()
    signal.setitimer(signal.ITIMER_REAL, 0)
    output = os.open(folder / "output.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sent = os.open(folder / "result.json.part", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)  # before any limit
    try:
        before()
        answer: dict[str, Any] = {"value": function(*args)}
    except BaseException as error:
        traceback.print_exc()
        answer = {"error": type(error).__name__, "text": str(error)[:2000]}
        answer["judged"] = refusal(error, [""]).kind
    os.write(sent, json.dumps(answer).encode())
    os.close(sent)
    os.rename(folder / "result.json.part", folder / "result.json")
    os._exit(0)
