"""One flipped bit in a stored file, then the same call again: the answer is equal, or the file is refused.

Every job leaves its files: artefacts, manifests, checkpoints, tokens, cells. Other files are loaded by hand:
directions, SAEs and a shipped checkpoint.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

from caft_utils.directions import Directions
from caft_utils.models.sources import classroom_checkpoint
from caft_utils.paths import data_path
from caft_utils.saes import SAEs
from faults import folder_readers
from faults.jobs import JOBS, run_job
from faults.kills import References
from faults.mutate import flipped
from faults.outcomes import Outcome, reading
from faults.running import Attempt, Child, ChildError

INTERRUPTED = "adapter_training"  # the job whose checkpoints are damaged too
# `record` has no checksum of its own: git keeps that file. `selection` is covered by the folders.
STORED = tuple(name for name in JOBS if name not in ("record", "selection"))


def flips(home: Path, names: Sequence[str] = STORED) -> Attempt:
    """One bit in a file of a finished or an interrupted job."""
    references = References(home, names)

    def attempt(rng: Random, folder: Path) -> Outcome:
        name, root = rng.choice(names), folder / "root"
        right = references[name]
        if name == INTERRUPTED and rng.random() < 0.6:
            for share in (0.8, 0.9, 1.0):  # until a checkpoint is there and the run is not complete
                shutil.rmtree(root, ignore_errors=True)
                Child(run_job, name, str(root), folder=folder / "killed").kill_after(share * right.seconds)
                if list(root.glob("work/*/*/checkpoint-*")):
                    break
        else:
            shutil.copytree(references.root(name), root)
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.stat().st_size]
        files = [path for path in files if path.suffix != ".lock"]
        if not files:
            return Outcome("fine", "nothing was written yet")
        path = rng.choice(files)
        path.write_bytes(flipped(path.read_bytes(), rng))
        what = f"{name}, {path.relative_to(root)}"
        try:
            digest = Child(run_job, name, str(root), folder=folder / "again").result(30 + 10 * right.seconds)
        except ChildError as error:
            return Outcome(
                "refused" if error.answer.get("judged") == "refused" else "lost", f"{what}: {error.outcome()}"
            )
        return Outcome("fine" if digest == right.digest else "silent", what)

    return attempt


def flipped_folders(home: Path) -> Attempt:
    """One bit in a folder of directions or SAEs, or in a checkpoint that ships with the package."""
    folder_readers.directions(home / "directions")
    folder_readers.saes(home / "saes")
    good = {"directions": home / "directions" / "good", "saes": home / "saes" / "good"}
    good["classroom"] = data_path("classroom", "gender")

    def identity(kind: str, there: Path) -> object:
        if kind == "classroom":
            before = os.environ.get("CAFT_DATA")
            os.environ["CAFT_DATA"] = str(there.parents[1])
            try:
                return classroom_checkpoint("classroom-gender").identity
            finally:
                os.environ.pop("CAFT_DATA") if before is None else os.environ.update(CAFT_DATA=before)
        loaded = (Directions if kind == "directions" else SAEs).load(there)
        return loaded.fingerprint, loaded.about

    right = {kind: identity(kind, there) for kind, there in good.items()}

    def attempt(rng: Random, folder: Path) -> Outcome:
        kind = rng.choice(sorted(good))
        there = folder / "classroom" / "gender"
        shutil.copytree(good[kind], there)
        path = rng.choice(sorted(path for path in there.rglob("*") if path.is_file()))
        path.write_bytes(flipped(path.read_bytes(), rng))
        return reading(
            lambda: identity(kind, there), about=[str(there)],
            agrees=lambda found: None if found == right[kind] else f"{path.name}: another value was read",
        )  # fmt: skip

    return attempt
