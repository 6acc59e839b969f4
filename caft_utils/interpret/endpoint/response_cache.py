"""Replies of a language model's server: read from its JSON, and kept on disk so that none is paid for twice.

A reply is a file of its own, put in its place by one rename: whoever reads the folder, also after a kill,
finds whole replies only.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reply:
    """text: what the model answered.

    logprobs: for each token of the answer {token: log-probability}, the chosen token first, then its
        alternatives; None where they were not asked for or the server gives none.
    tokens: (in, out) as the server counted them, None where it does not say. finish: why the answer ended.
    """

    text: str
    logprobs: list[dict[str, float]] | None = None
    tokens: tuple[int, int] | None = None
    finish: str | None = None


class EndpointError(RuntimeError):
    """A prompt without a reply. status: the HTTP status if there was one; for_all: others will fail alike."""

    def __init__(self, message: str, *, status: int | None = None, for_all: bool = False):
        super().__init__(message)
        self.status, self.for_all = status, for_all


def parse(body: str) -> Reply:
    """The reply in the body of an answer of status 200.

    Raises:
        ValueError: damaged: no JSON, or not of the expected form.
        EndpointError: whole, but without text.
    """
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
        usage = answer.get("usage") or {}
        tokens = (int(usage["prompt_tokens"]), int(usage["completion_tokens"])) if usage else None
        steps = (choice.get("logprobs") or {}).get("content") or []
        logprobs = [
            {entry["token"]: float(entry["logprob"]) for entry in (step, *(step.get("top_logprobs") or ()))}
            for step in steps
        ]
        if not isinstance(text, str | None):
            raise TypeError("content is not text")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(f"malformed answer: {' '.join(body.split())[:200]!r}") from None
    if text is None:
        raise EndpointError(f"the model answered without text (finish_reason {finish!r})", status=200)
    return Reply(text, logprobs or None, tokens, finish)


class ResponseCache:
    """Replies in a folder, by the digest of what was asked."""

    def __init__(self, folder: Path):
        self.folder = folder

    def get(self, name: str) -> Reply | None:
        """The reply kept under `name`. A damaged file is as good as none: the next reply replaces it."""
        try:
            fields = json.loads(self._file(name).read_text(encoding="utf-8"))["reply"]
            return Reply(**{**fields, "tokens": fields["tokens"] and tuple(fields["tokens"])})
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def put(self, name: str, reply: Reply, **asked: Any) -> None:
        """Keep a reply beside what was asked. A disk that is full costs a warning, not the reply."""
        file = self._file(name)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            number, part = tempfile.mkstemp(dir=file.parent, suffix=".part")
            try:
                with open(number, "w", encoding="utf-8") as out:
                    json.dump({**asked, "reply": asdict(reply)}, out)
                    out.flush()
                    os.fsync(number)
                os.replace(part, file)
            except BaseException:
                os.unlink(part)
                raise
        except OSError as error:
            warnings.warn(
                f"a reply could not be kept in {self.folder} ({error}) and will be asked for again; free "
                "some space or give cache= another folder",
                stacklevel=2,
            )

    def _file(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.json"
