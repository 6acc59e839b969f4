"""Replies on disk, so that no prompt is paid for twice.

Each reply is a separate file, written by one rename. A reader finds only whole replies, even after a kill.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from caft_utils.interpret.endpoint.reply import Reply
from caft_utils.store import write_atomically


class ResponseCache:
    """Replies in a folder, by the digest of their request."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = Lock()  # two threads may write the reply to the same request

    def get(self, name: str) -> Reply | None:
        """Return the reply stored under `name`. A damaged file counts as missing, and `put` replaces it."""
        try:
            fields = json.loads(self._file(name).read_text(encoding="utf-8"))["reply"]
            return Reply(**{**fields, "tokens": fields["tokens"] and tuple(fields["tokens"])})
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None

    def put(self, name: str, reply: Reply, **request: Any) -> None:
        """Store a reply with its request. If the disk is full, only warn, because the reply is at hand."""
        content = json.dumps({**request, "reply": asdict(reply)})
        try:
            with self._lock:
                write_atomically(self._file(name), content)
        except OSError as error:
            warnings.warn(
                f"a reply could not be stored in {self.folder} ({error}) and will be requested again; free "
                "some space or give cache= another folder",
                stacklevel=2,
            )

    def _file(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.json"
