"""kill -9 at a random moment of every long command, once or twice; then run it to the end.

The result has to be that of an undisturbed run. What was complete at the kill has to be there, and nothing
that is visible may be half-written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from filelock import FileLock
from helpers.chat_server import chat_server

from caft_utils.interpret.endpoint import Endpoint
from faults.jobs import JOBS, finished, run_job
from faults.outcomes import Outcome
from faults.running import Attempt, Child, ChildError

PROMPTS = 12


@dataclass(frozen=True)
class Undisturbed:
    """What a job returns when nothing happens to it, how long it takes and how many bytes it leaves."""

    digest: str
    seconds: float
    size: int


class References:
    """The undisturbed runs of jobs. The first target that needs one makes it, the others wait."""

    def __init__(self, home: Path, names: Sequence[str]):
        self.folder, self._made = home.parents[1] / "references", {}
        self.folder.mkdir(exist_ok=True)
        for name in names:
            with FileLock(self.folder / f"{name}.lock"):
                self._made[name] = self._undisturbed(name)

    def __getitem__(self, name: str) -> Undisturbed:
        return self._made[name]

    def root(self, name: str) -> Path:
        """Return the folder that the undisturbed run has left."""
        return self.folder / name / "root"

    def _undisturbed(self, name: str) -> Undisturbed:
        made = self.folder / name / "reference.json"
        if not made.exists():
            started = time.monotonic()
            digest = Child(run_job, name, str(self.root(name)), folder=made.parent / "child").result(200)
            seconds = time.monotonic() - started
            size = sum(path.stat().st_size for path in self.root(name).rglob("*") if path.is_file())
            made.write_text(json.dumps([digest, seconds, size]))
        return Undisturbed(*json.loads(made.read_text()))


def complete(name: str, root: Path, folder: Path, right: Undisturbed) -> Outcome:
    """Run a job to its end after a disturbance, and compare."""
    try:
        if missing := finished(name, root):
            return Outcome("lost", f"{name}: {missing}")
    except Exception as error:
        return Outcome("lost", f"{name}: {type(error).__name__}: {error}"[:300])
    try:
        digest = Child(run_job, name, str(root), folder=folder / "again").result(30 + 10 * right.seconds)
    except (ChildError, TimeoutError) as error:
        said = error.outcome() if isinstance(error, ChildError) else str(error)
        return Outcome("lost", f"{name} cannot be completed: {said}")
    if digest != right.digest:
        return Outcome("silent", f"{name}: another result than that of an undisturbed run")
    return Outcome("fine", name)


def killed(home: Path, names: Sequence[str] = tuple(JOBS)) -> Attempt:
    """SIGKILL for all jobs of jobs.py."""
    references = References(home, names)

    def attempt(rng: Random, folder: Path) -> Outcome:
        name = rng.choice(names)
        right = references[name]
        for n in range(rng.choice((1, 1, 2))):
            child = Child(run_job, name, str(folder / "root"), folder=folder / f"killed-{n}")
            child.kill_after(rng.uniform(0, 1.05 * right.seconds))
        (folder / "root").mkdir(exist_ok=True)
        return complete(name, folder / "root", folder, right)

    return attempt


def killed_questions(home: Path) -> Attempt:
    """SIGKILL while prompts are sent: no reply that arrived is paid for twice."""

    def ask(address: str, cache: str) -> list[str]:
        prompts = [[{"role": "user", "content": str(n)}] for n in range(PROMPTS)]
        endpoint = Endpoint(address, "m", key_env=None, cache=cache, workers=2)
        return [getattr(reply, "text", repr(reply)) for reply in endpoint.chat_all(prompts)]

    def answer(request) -> str:
        time.sleep(0.01)
        return f"answer {request.prompt}"

    def attempt(rng: Random, folder: Path) -> Outcome:
        with chat_server(answer) as (address, requests):
            child = Child(ask, address, str(folder / "replies"), folder=folder / "killed")
            child.kill_after(rng.uniform(0, 0.5))
            try:
                replies = Child(ask, address, str(folder / "replies"), folder=folder / "again").result(30)
            except (ChildError, TimeoutError) as error:
                return Outcome("lost", f"{type(error).__name__}: {error}"[:300])
            sent = len(requests)
        if replies != [f"answer {n}" for n in range(PROMPTS)]:
            return Outcome("silent", f"{replies}"[:300])
        return (
            Outcome("lost", f"{sent} requests for {PROMPTS} prompts")
            if sent > PROMPTS + 2
            else Outcome("fine")
        )

    return attempt
