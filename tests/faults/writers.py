"""Two processes at once on one store, one record, one folder and one cache of replies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from helpers.chat_server import chat_server

from caft_utils.course.records import load_record, save_record
from caft_utils.directions import Directions
from caft_utils.interpret.endpoint import Endpoint
from faults.jobs import finished, run_job
from faults.kills import References
from faults.outcomes import Outcome
from faults.running import Attempt, Child, ChildError

SHARED = ("adapter_training", "sae_training", "artefacts", "tokens", "grid")
ROWS, PROMPTS = 15, 10


def two_writers(home: Path, names: Sequence[str] = SHARED) -> Attempt:
    """One of several pairs of writers, the second a random moment later."""
    pairs = {
        "jobs": _jobs(References(home, names), names),
        "record": _record,
        "folder": _folder,
        "replies": _replies,
    }

    def attempt(rng: Random, folder: Path) -> Outcome:
        name = rng.choice(sorted(pairs))
        try:
            wrong = pairs[name](rng, folder)
        except (ChildError, TimeoutError) as error:
            return Outcome("lost", f"{name}: {error.outcome() if isinstance(error, ChildError) else error}")
        return wrong or Outcome("fine", name)

    return attempt


def _pair(rng: Random, folder: Path, function, one: tuple, two: tuple, latest: float) -> list:
    first = Child(function, *one, folder=folder / "first")
    time.sleep(rng.uniform(0, latest))
    second = Child(function, *two, folder=folder / "second")
    return [first.result(60), second.result(60)]


def _jobs(references: References, names: Sequence[str]):
    def attempt(rng: Random, folder: Path) -> Outcome | None:
        name, root = rng.choice(names), folder / "root"
        right = references[name]
        root.mkdir()
        digests = _pair(rng, folder, run_job, (name, str(root)), (name, str(root)), right.seconds)
        if set(digests) != {right.digest}:
            return Outcome("silent", f"{name}: the two results differ, or are not the right one")
        missing = finished(name, root)
        return Outcome("lost", f"{name}: {missing}") if missing else None

    return attempt


def _record(rng: Random, folder: Path) -> Outcome | None:
    def save(who: str) -> None:
        for n in range(ROWS):
            save_record("claim", [{"model": f"{who}{n}", "condition": "c"}], seconds=1, folder=folder)

    _pair(rng, folder, save, ("a",), ("b",), 0.05)
    kept = {row["model"] for row in load_record("claim", folder)["rows"]}
    lost = 2 * ROWS - len(kept)
    return Outcome("lost", f"{lost} of {2 * ROWS} rows of a record") if lost else None


def _folder(rng: Random, folder: Path) -> Outcome | None:
    import torch

    made = {n: Directions({1: torch.roll(torch.eye(32)[:8], n, 1)}, {"n": n}) for n in range(2)}
    made[0].save(folder / "picked")

    def write(n: int) -> None:
        for _ in range(20):
            made[n].save(folder / "picked")

    def read(n: int) -> None:
        for _ in range(40):
            found = Directions.load(folder / "picked")
            if found.fingerprint != made[found.about["n"]].fingerprint:
                raise AssertionError("a mixture of two directions was read")

    other = (
        Child(read, 0, folder=folder / "reader")
        if rng.random() < 0.5
        else Child(write, 0, folder=folder / "reader")
    )
    write_too = Child(write, 1, folder=folder / "writer")
    for child in (other, write_too):
        child.result(60)
    Directions.load(folder / "picked")
    return None


def _replies(rng: Random, folder: Path) -> Outcome | None:
    prompts = [[{"role": "user", "content": str(n)}] for n in range(PROMPTS)]

    def ask(address: str) -> list[str]:
        endpoint = Endpoint(address, "m", key_env=None, cache=folder / "replies", workers=2)
        return [getattr(reply, "text", repr(reply)) for reply in endpoint.chat_all(prompts)]

    with chat_server(lambda request: f"answer {request.prompt}") as (address, _):
        both = _pair(rng, folder, ask, (address,), (address,), 0.1)
        both.append(Child(ask, address, folder=folder / "third").result(60))
    right = [f"answer {n}" for n in range(PROMPTS)]
    return None if both == [right] * 3 else Outcome("silent", f"{both}"[:300])
