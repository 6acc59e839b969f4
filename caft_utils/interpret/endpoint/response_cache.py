"""Cache replies on disk, so that no prompt is paid for twice.

Each reply is a separate file that is written atomically, so a killed process leaves no partial reply. A
checksum detects later damage.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from threading import Event, Lock
from typing import Any

from filelock import FileLock, Timeout

from caft_utils.interpret.endpoint.reply import Reply
from caft_utils.store import digest, write_atomically

FIELDS = {"base_url", "request", "reply", "sha256"}


def request_digest(base_url: str, request: Mapping[str, Any]) -> str:
    """Return the name of a request's reply."""
    return digest({"base_url": base_url, **request})


def _checksum(fields: Mapping[str, Any]) -> str:
    return sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class ResponseCache:
    """Replies in a folder, by the digest of their request."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = Lock()  # two threads may write the reply to the same request

    def get(self, name: str) -> Reply | None:
        """Return the reply stored under `name`. A damaged file counts as missing, and `put` replaces it."""
        try:
            content = json.loads(self._file(name).read_text(encoding="utf-8"))
            fields = content["reply"]
            if set(content) - FIELDS:
                return None  # a field name is damaged, perhaps the one of the checksum
            if "base_url" in content and request_digest(content["base_url"], content["request"]) != name:
                return None  # the file of another request, moved here
            if content.get("sha256", _checksum(fields)) != _checksum(fields):  # older files have none
                return None
            return Reply(**{**fields, "tokens": fields["tokens"] and tuple(fields["tokens"])})
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None

    def put(self, name: str, reply: Reply, **request: Any) -> None:
        """Store a reply with its request. Only warn if the disk is full, because the caller has the reply."""
        fields = asdict(reply)
        content = json.dumps({**request, "reply": fields, "sha256": _checksum(fields)})
        try:
            with self._lock:
                write_atomically(self._file(name), content)
        except OSError as error:
            warnings.warn(
                f"a reply could not be stored in {self.folder} ({error}) and will be requested again; free "
                "some space or give cache= another folder",
                stacklevel=2,
            )

    @contextmanager
    def claim(self, name: str, stop: Event) -> Iterator[None]:
        """Lock the request `name`; other threads and processes that use this folder wait.

        Requests share 4096 locks. If the folder does not support locks, there is no waiting. Setting `stop`
        ends a wait.
        """
        lock = FileLock(self.folder / "locks" / f"{name[:3]}.lock", thread_local=False, is_singleton=False)
        try:
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            while not stop.is_set():
                try:
                    lock.acquire(timeout=0.5, poll_interval=0.02)
                    break
                except Timeout:
                    continue
        except (OSError, NotImplementedError):
            pass
        try:
            yield
        finally:
            lock.release()

    def _file(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.json"
