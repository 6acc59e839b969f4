"""Disks that are full or read-only while a long command writes; then the same command with room.

As root the disk is a small tmpfs, mounted where only this process sees it. Otherwise the system's limit on
the size of a file stands for a full disk, and a folder without write permission for a read-only one.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random

from faults.jobs import JOBS, run_job
from faults.kills import References, complete
from faults.outcomes import Outcome
from faults.running import Attempt, Child, ChildError

CLONE_NEWNS = 0x00020000
TOLD = ("is full", "not writable", "largest size", "probably full")  # words of a clear message
ROOM = 400  # MB of a disk with room


def bad_disks(home: Path, names: Sequence[str] = tuple(JOBS)) -> Attempt:
    """Full and read-only disks for all jobs."""
    mounts, references = _own_mounts(), References(home, names)

    def attempt(rng: Random, folder: Path) -> Outcome:
        name, read_only = rng.choice(names), rng.random() < 0.25
        right = references[name]
        size = max(8192, int(rng.uniform(0.02, 1.1) * right.size))
        disk = folder / "disk"
        disk.mkdir()
        before = int
        try:
            if mounts:
                _mount("-t", "tmpfs", "-o", f"size={ROOM}m" if read_only else f"size={size}", "tmpfs", disk)
                (disk / "root").mkdir()
                if read_only:
                    _mount("-o", "remount,ro", disk)
            elif read_only:
                (disk / "root").mkdir()
                (disk / "root").chmod(0o500)
            else:
                before = _limit_of_files(size)
            try:
                child = Child(run_job, name, str(disk / "root"), folder=folder / "child", before=before)
                digest = child.result(30 + 10 * right.seconds)
                told = Outcome("fine" if digest == right.digest else "silent", f"{name}: it fitted")
            except ChildError as error:
                clear = error.error.endswith("Error") and any(words in str(error) for words in TOLD)
                kind = "refused" if clear else "raw"
                told = Outcome(
                    kind, f"{name}, {'read-only' if read_only else f'full at {size}'}: {error.outcome()}"
                )
            if mounts:
                _mount("-o", f"remount,rw,size={ROOM}m", disk)
            elif read_only:
                (disk / "root").chmod(0o700)
            after = complete(name, disk / "root", folder, right)
            return after if after.kind != "fine" else told
        finally:
            if mounts:
                subprocess.run(["umount", "-l", str(disk)], check=False)
            shutil.rmtree(disk, ignore_errors=True)

    return attempt


def _own_mounts() -> bool:
    """Give this process a view of the mounts of its own, and return whether it may mount there."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        return False
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True).returncode == 0


def _mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


def _limit_of_files(size: int):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit
