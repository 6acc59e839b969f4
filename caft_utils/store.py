"""Content-addressed artefacts: nothing is trained twice, nothing half-written is ever read.

An artefact is a folder `<root>/<kind>/<sha256 of its key>/`, where the key is a JSON object that names
everything the content depends on. It is written into a temporary folder under a lock, flushed to disk, and
renamed, which is atomic; a manifest of checksums is verified on every read, and a damaged artefact is removed
and rebuilt.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from filelock import FileLock

MANIFEST = "manifest.json"


def digest(key: Any) -> str:
    """sha256 (hex) of a JSON value, written the same way whatever the order of its keys."""
    return sha256(
        json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


class Store:
    """Artefacts in one folder: `root`, else the environment's CAFT_STORE, else ~/.cache/caft_utils.

    Processes may share a store: each key has a lock (released by the system when its holder dies), so of two
    that want the same artefact one builds it and the other waits and reads.
    """

    def __init__(self, root: str | Path | None = None):
        self.root = (
            Path(root or os.environ.get("CAFT_STORE") or "~/.cache/caft_utils").expanduser().absolute()
        )

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def get(self, kind: str, key: Mapping[str, Any]) -> Path | None:
        """The artefact's folder, or None where there is none; a damaged one is removed with a warning."""
        folder = self._folder(kind, key)
        if not folder.exists():
            return None
        if not _damage(folder):
            return folder
        with self._lock(kind, key):
            # Look again: another process may have rebuilt it while we waited, and that one must stay.
            damage = _damage(folder) if folder.exists() else None
            if damage:
                warnings.warn(f"{folder} is damaged ({damage}); it is removed and made anew", stacklevel=2)
                shutil.rmtree(folder)
        return folder if folder.exists() else None

    def put(self, kind: str, key: Mapping[str, Any], write: Callable[[Path], object]) -> Path:
        """Let `write(folder)` fill an empty folder, then make it the artefact of `key`, replacing an older
        one.

        Raises:
            OSError: the disk is full or not writable; nothing half-written stays.
        """
        folder = self._folder(kind, key)
        part = folder.with_name(folder.name + ".part")
        with _clear_disk_errors(self.root), self._lock(kind, key):
            shutil.rmtree(
                part, ignore_errors=True
            )  # left by a killed process: we hold the lock, so nobody writes it
            part.mkdir(parents=True)
            try:
                write(part)
                (part / "key.json").write_text(json.dumps(key, indent=1, sort_keys=True))
                sums = {name: file_sha256(part / name) for name in _files(part)}
                (part / MANIFEST).write_text(json.dumps(sums, indent=1))
                for path in (part / name for name in (*sums, MANIFEST)):
                    _flush(path)
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(part, folder)
                _flush(folder.parent)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        return folder

    def fetch(self, kind: str, key: Mapping[str, Any], write: Callable[[Path], object]) -> Path:
        """The artefact of `key`, built by `write(folder)` where it is not there yet."""
        found = self.get(kind, key)
        if found is None:
            with _clear_disk_errors(self.root), self._lock(kind, key):
                found = self.get(kind, key) or self.put(kind, key, write)
        return found

    @contextmanager
    def work(self, kind: str, key: Mapping[str, Any]) -> Iterator[Path]:
        """A scratch folder for resumable work on `key`, held by one process at a time.

        It stays when the block is left by an exception or a kill, so that the next call can go on from there,
        and is removed when the block ends well.
        """
        folder = self.root / "work" / kind / digest(key)
        with _clear_disk_errors(self.root), self._lock(kind, key):
            folder.mkdir(parents=True, exist_ok=True)
            yield folder
            shutil.rmtree(folder)

    def _folder(self, kind: str, key: Mapping[str, Any]) -> Path:
        return self.root / kind / digest(key)

    def _lock(self, kind: str, key: Mapping[str, Any]) -> FileLock:
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        # A singleton is re-entrant: `put` inside `work` or `fetch` of the same key takes the lock that it
        # holds.
        return FileLock(locks / f"{kind}-{digest(key)}.lock", is_singleton=True)


def default_store() -> Store:
    """The store of this machine's user, see `Store`."""
    return Store()


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write_atomically(path: str | Path, data: str | bytes) -> Path:
    """Write a file so that a reader finds the old content, the new content or no file, never a part.

    The data are written beside `path`, flushed to disk and renamed. The folder is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def file_sha256(path: str | Path) -> str:
    """Return the sha256 (hex) of a file."""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    if os.name == "nt":  # flushes no folders, and files only through the handle that wrote them
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _damage(folder: Path) -> str | None:
    """What is wrong with an artefact, or None."""
    try:
        sums = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return "its manifest cannot be read"
    if sorted([*sums, MANIFEST]) != _files(folder):
        return "files are missing or were added"
    changed = [name for name, expected in sums.items() if file_sha256(folder / name) != expected]
    return f"the checksum of {', '.join(changed)} is wrong" if changed else None


@contextmanager
def _clear_disk_errors(root: Path) -> Iterator[None]:
    """Say what to do when a disk is full or not writable; some writers wrap the system's error."""
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        if number == errno.ENOSPC or "No space left on device" in str(error):
            number, what = errno.ENOSPC, f"the disk that holds {root} is full"
        elif number in (errno.EACCES, errno.EROFS):
            what = f"{root} is not writable ({error})"
        else:
            raise
        if str(root) in str(error) and "CAFT_STORE" in str(error):
            raise  # said already by an inner block
        raise OSError(number, f"{what}; free some space or let CAFT_STORE name a folder elsewhere") from error
