"""Content-addressed artefacts: nothing is trained twice, and nothing half-written is ever read.

An artefact is a folder `<root>/<kind>/<sha256 of its key>/`. The key is a JSON object that names everything
the content depends on. `put` fills a temporary folder under a lock, flushes it to disk and renames it, which
is atomic. Every read verifies a manifest of checksums; a damaged artefact is removed and rebuilt.

This is also the one place for atomic writes of single files and for checksums of files and tensors.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
KEY = "key.json"


class Store:
    """Artefacts in one folder: `root`, else the environment's CAFT_STORE, else ~/.cache/caft_utils.

    Processes may share a store. Each key has a lock, which the system releases when its holder dies: of two
    processes that want the same artefact, one builds it while the other waits and then reads it.
    """

    def __init__(self, root: str | Path | None = None):
        root = root or os.environ.get("CAFT_STORE") or "~/.cache/caft_utils"
        self.root = Path(root).expanduser().absolute()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def get(self, kind: str, key: Mapping[str, Any]) -> Path | None:
        """Return the artefact's folder, or None. A damaged artefact is removed with a warning."""
        folder = self._folder(kind, key)
        if not folder.exists():
            return None
        if not _damage(folder, key):
            return folder
        with self._lock(kind, key):
            # Look again: another process may have rebuilt it while we waited for the lock.
            damage = _damage(folder, key) if folder.exists() else None
            if damage:
                warnings.warn(f"{folder} is damaged ({damage}); it is removed and rebuilt", stacklevel=2)
                shutil.rmtree(folder)
        return folder if folder.exists() else None

    def put(self, kind: str, key: Mapping[str, Any], write: Callable[[Path], object]) -> Path:
        """Let `write(folder)` fill an empty folder, store it as the artefact of `key`, and return its path.

        Raises:
            OSError: the disk is full or not writable. No partial artefact remains.
        """
        folder = self._folder(kind, key)
        part = folder.with_name(folder.name + ".part")
        with _clear_disk_errors(self.root), self._lock(kind, key):
            shutil.rmtree(part, ignore_errors=True)  # left by a killed process: this one holds the lock
            part.mkdir(parents=True)
            try:
                write(part)
                (part / KEY).write_text(json.dumps(key, indent=1, sort_keys=True))
                checksums = {name: file_sha256(part / name) for name in _files(part)}
                (part / MANIFEST).write_text(json.dumps(checksums, indent=1))
                for name in (*checksums, MANIFEST):
                    _flush(part / name)
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(part, folder)
                _flush(folder.parent)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        return folder

    def fetch(self, kind: str, key: Mapping[str, Any], write: Callable[[Path], object]) -> Path:
        """Return the folder of the artefact of `key`, built by `write(folder)` if it is missing."""
        folder = self.get(kind, key)
        if folder is None:
            with _clear_disk_errors(self.root), self._lock(kind, key):
                folder = self.get(kind, key) or self.put(kind, key, write)
        return folder

    @contextmanager
    def work(self, kind: str, key: Mapping[str, Any]) -> Iterator[Path]:
        """Yield a scratch folder for resumable work on `key`, held by one process at a time.

        The folder is removed when the block completes. After an exception or a kill it stays, so that the
        next call can resume.
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
        # A singleton is re-entrant: `put` inside `work` or `fetch` of the same key takes the lock again.
        return FileLock(locks / f"{kind}-{digest(key)}.lock", is_singleton=True)


def default_store() -> Store:
    """Return the default store of the current user, see `Store`."""
    return Store()


def write_atomically(path: str | Path, data: str | bytes) -> Path:
    """Write a file so that a reader finds the old content, the new content or no file, but never a part.

    The data are written beside `path`, flushed to disk and renamed. A missing folder is created.
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


def digest(value: Any) -> str:
    """Return the sha256 (hex) of a JSON value; the order of its keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode()).hexdigest()


def file_sha256(path: str | Path) -> str:
    """Return the sha256 (hex) of a file."""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def tensors_sha256(labelled: Iterable[tuple[str, Tensor]], *, start: str = "") -> str:
    """Return the sha256 (hex) of `start` and of each label with the raw bytes of its tensor, in this order.

    The bytes do not contain a tensor's shape or dtype, so labels should name them where they can differ.
    """
    import torch

    hashed = sha256(start.encode())
    for label, tensor in labelled:
        hashed.update(label.encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _flush(path: Path) -> None:
    if os.name == "nt":  # Windows flushes no folders, and files only through the handle that wrote them
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _damage(folder: Path, key: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an artefact of `key`, or None."""
    try:
        checksums = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return "its manifest cannot be read"
    if sorted([*checksums, MANIFEST]) != _files(folder):
        return "files are missing or were added"
    changed = [name for name, expected in checksums.items() if file_sha256(folder / name) != expected]
    if changed:
        return f"the checksum of {', '.join(changed)} is wrong"
    if json.loads((folder / KEY).read_text()) != json.loads(json.dumps(key)):
        return f"its {KEY} is that of another artefact"
    return None


@contextmanager
def _clear_disk_errors(root: Path) -> Iterator[None]:
    """Add advice to the error when the disk is full or not writable. Some writers wrap the system's error."""
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        if number == errno.ENOSPC or "No space left on device" in str(error):
            number, problem = errno.ENOSPC, f"the disk that holds {root} is full"
        elif number in (errno.EACCES, errno.EROFS):
            problem = f"{root} is not writable ({error})"
        else:
            raise
        if str(root) in str(error) and "CAFT_STORE" in str(error):
            raise  # an inner block has added it already
        message = f"{problem}; free some space or let CAFT_STORE name a folder elsewhere"
        raise OSError(number, message) from error
