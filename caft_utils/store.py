"""Content-addressed artefacts: nothing is trained twice, and nothing half-written is ever read.

An artefact is a folder `<root>/<kind>/<sha256 of its key>/`. The key is a JSON object that names everything
the content depends on. `put` fills a temporary folder under a lock, flushes it to disk and renames it, which
is atomic. Every read verifies a manifest of checksums; a damaged artefact is removed and rebuilt.

Names and manifests use the sha256 of files and tensors, which is computed here.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from caft_utils.disk import (
    disk_errors_explained,
    flush,
    flush_tree,
    make_folder,
    remove,
)
from caft_utils.disk import write_atomically as write_atomically

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
KEY = "key.json"
Item = TypeVar("Item")


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
        if not os.path.lexists(folder):
            return None
        if not damage(folder, key=key):
            return folder
        with self._explained(), self._lock(kind, key):
            # Look again: another process may have rebuilt it while we waited for the lock.
            wrong = damage(folder, key=key) if os.path.lexists(folder) else None
            if wrong:
                warnings.warn(f"{folder} is damaged ({wrong}); it is removed and rebuilt", stacklevel=2)
                remove(folder)
        return folder if os.path.lexists(folder) else None

    def put(self, kind: str, key: Mapping[str, Any], write: Callable[[Path], object]) -> Path:
        """Let `write(folder)` fill an empty folder, store it as the artefact of `key`, and return its path.

        Raises:
            OSError: the disk is full or not writable. No partial artefact remains.
        """
        folder = self._folder(kind, key)
        part = folder.with_name(folder.name + ".part")
        with self._explained(), self._lock(kind, key):
            make_folder(folder.parent)
            remove(part)  # left by a killed process: this one holds the lock
            part.mkdir()
            try:
                write(part)
                (part / KEY).write_text(json.dumps(key, indent=1, sort_keys=True))
                seal(part)
                remove(folder)
                os.rename(part, folder)
                flush(folder.parent)
            finally:
                remove(part)
        return folder

    def fetch(self, kind: str, key: Mapping[str, Any], write: Callable[[Path], object]) -> Path:
        """Return the folder of the artefact of `key`, built by `write(folder)` if it is missing."""
        folder = self.get(kind, key)
        if folder is None:
            with self._explained(), self._lock(kind, key):
                folder = self.get(kind, key) or self.put(kind, key, write)
        return folder

    def keys(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yield the keys of the stored artefacts of a kind. `get` says whether an artefact is whole."""
        for path in sorted((self.root / kind).glob(f"*/{KEY}")):
            if isinstance(key := _json_of(path), dict):  # else the artefact is damaged
                yield key

    @contextmanager
    def work(self, kind: str, key: Mapping[str, Any]) -> Iterator[Path]:
        """Yield a scratch folder for resumable work on `key`, held by one process at a time.

        The folder is removed when the block completes. After an exception or a kill it stays, so that the
        next call can resume.
        """
        folder = self.root / "work" / kind / digest(key)
        with self._explained(), self._lock(kind, key):
            if not folder.is_dir():
                remove(folder)  # a file or a broken link in its place
            make_folder(folder)
            yield folder
            remove(folder)

    def shared(
        self, items: Iterable[Item], kind: str, key: Callable[[Item], Mapping[str, Any]]
    ) -> Iterator[Item]:
        """Yield all items, first those that no other process is working on.

        Processes that go through the same items so compute different ones, and read the rest from the store.
        An item is locked until the next one is asked for. Use this in a `for` loop: after an error, a
        comprehension keeps the lock for as long as its traceback lives.

        Args:
            kind, key: name an item; see `Store`.
        """
        waiting = [(item, self._lock(f"{kind}-in-hand", key(item))) for item in items]
        while waiting:
            with self._explained():
                place = next((n for n, (_, lock) in enumerate(waiting) if _take_if_free(lock)), None)
                if place is None:  # all are taken: wait for the first
                    place = 0
                    waiting[place][1].acquire()
            item, lock = waiting.pop(place)
            try:
                yield item
            finally:
                lock.release()

    def _folder(self, kind: str, key: Mapping[str, Any]) -> Path:
        return self.root / kind / digest(key)

    def _explained(self) -> AbstractContextManager[None]:
        return disk_errors_explained(self.root, "free some space or let CAFT_STORE name a folder elsewhere")

    def _lock(self, kind: str, key: Mapping[str, Any]) -> FileLock:
        lock = make_folder(self.root / "locks") / f"{kind}-{digest(key)}.lock"
        if lock.is_symlink() or lock.is_dir():  # not a lock of ours; keep a folder that is not empty
            try:
                lock.unlink() if lock.is_symlink() else lock.rmdir()
            except OSError as error:
                raise OSError(error.errno, f"{lock} is in the place of a lock; move it away") from error
        # A singleton is re-entrant: `put` inside `work` or `fetch` of the same key takes the lock again.
        return FileLock(lock, is_singleton=True)


def _take_if_free(lock: FileLock) -> bool:
    """Take a lock if nobody else has it, and return whether it is ours."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def default_store() -> Store:
    """Return the default store of the current user, see `Store`."""
    return Store()


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


def seal(folder: Path, manifest: str = MANIFEST) -> None:
    """Flush a folder to disk, and then write the manifest: the checksums of all files in it."""
    checksums = {name: file_sha256(folder / name) for name in _files(folder) if name != manifest}
    flush_tree(folder)
    write_atomically(folder / manifest, json.dumps(checksums, indent=1))


def damage(folder: Path, manifest: str = MANIFEST, *, key: Mapping[str, Any] | None = None) -> str | None:
    """Return what is wrong with a folder that `seal` completed, or None.

    Args:
        key: the key of the artefact that is expected there; None compares no key.
    """
    if not folder.is_dir():
        return "it is not a folder"
    files = _files(folder)
    # Read regular files only, because opening a pipe could block for ever.
    checksums = _manifest(folder / manifest) if manifest in files else None
    if checksums is None:
        return "its manifest cannot be read"
    if sorted([*checksums, manifest]) != files:
        return "files are missing or were added"
    try:
        changed = [name for name, expected in checksums.items() if file_sha256(folder / name) != expected]
    except OSError as error:
        return f"{error.filename} cannot be read"
    if changed:
        return f"the checksum of {', '.join(changed)} is wrong"
    if key is not None and _json_of(folder / KEY) != json.loads(json.dumps(key)):
        return f"its {KEY} is that of another artefact"
    return None


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _manifest(path: Path) -> dict[str, str] | None:
    """Return the checksums of a manifest, or None if the file cannot be read or holds something else."""
    checksums = _json_of(path)
    return checksums if isinstance(checksums, dict) else None


def _json_of(path: Path) -> Any:
    """Return the JSON value in a file, or None if it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
