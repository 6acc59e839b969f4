"""Checkpoints of a run in its work folder. They are used only after their checksums are verified.

`checkpoint-<step>` holds what Trainer needs to go on, and `step-<step>` the weights of a snapshot. Both are
sealed when they are whole: flushed to disk, with the run and the step that they belong to, and a manifest of
checksums that is written last. A checkpoint without a manifest was cut short by a kill and is removed. A
folder that differs from its manifest is removed with a warning, and the run goes on from the newest whole
checkpoint. The newest checkpoint is the one with the largest step, because clocks can be set back.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

from caft_utils.disk import remove
from caft_utils.store import damage, seal

COMPLETE = "complete"  # the manifest of a sealed folder
IDENTITY = "belongs_to.json"
SNAPSHOT_PART = "snapshot.part"  # where a snapshot is written before it has its name
KEPT = 2  # if the newest checkpoint is damaged, there is an older one


def seal_step(folder: Path, work: Path, step: int) -> None:
    """Mark the checkpoint or snapshot of a step as whole. Nothing may be written into it afterwards."""
    (folder / IDENTITY).write_text(json.dumps({"run": work.name, "step": step}))
    seal(folder, COMPLETE)


def rotate(work: Path) -> None:
    """Remove all checkpoints but those of the last steps."""
    for step in sorted(_steps(work, "checkpoint"))[:-KEPT]:
        remove(work / f"checkpoint-{step}")


def remove_unfinished(work: Path) -> None:
    """Remove checkpoints and a snapshot that were never sealed, for example after a full disk."""
    remove(work / SNAPSHOT_PART)
    for step in _steps(work, "checkpoint"):
        if not (work / f"checkpoint-{step}" / COMPLETE).is_file():
            remove(work / f"checkpoint-{step}")


def newest_whole(work: Path, snapshots: Iterable[int] = ()) -> str | None:
    """Return the newest checkpoint to resume from, and remove damaged checkpoints and snapshots.

    A checkpoint counts only if the snapshots of all earlier steps are there, because a run that resumes after
    a step does not write its snapshot again.
    """
    remove_unfinished(work)
    there = {step for step in _steps(work, "step") if _is_whole(work, "step", step)}
    missing = [step for step in snapshots if step not in there]
    for step in sorted(_steps(work, "checkpoint"), reverse=True):
        if not _is_whole(work, "checkpoint", step):
            continue
        if not missing or step < min(missing):
            return str(work / f"checkpoint-{step}")
        remove(work / f"checkpoint-{step}")  # the run reaches this step again
    return None


def _steps(work: Path, kind: str) -> list[int]:
    names = (re.fullmatch(rf"{kind}-(\d+)", path.name) for path in work.iterdir())
    return [int(name[1]) for name in names if name and str(int(name[1])) == name[1]]


def _is_whole(work: Path, kind: str, step: int) -> bool:
    """Return whether a folder is as it was sealed, and remove it otherwise."""
    folder = work / f"{kind}-{step}"
    wrong = damage(folder, COMPLETE)
    if not wrong and json.loads((folder / IDENTITY).read_bytes()) != {"run": work.name, "step": step}:
        wrong = "it belongs to another run or step"
    if wrong:
        warnings.warn(
            f"{folder} is damaged ({wrong}); it is removed, and training goes on from an older step",
            stacklevel=2,
        )
        remove(folder)
    return not wrong
