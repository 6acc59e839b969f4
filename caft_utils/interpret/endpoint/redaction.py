"""Remove the key from replies and from the logs of the HTTP client.

At level DEBUG the HTTP client logs the headers and the reason of each response. The server controls both, so
they may contain the key.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from threading import Lock

from caft_utils.interpret.endpoint.api_key import contains, redact
from caft_utils.interpret.endpoint.reply import Reply

LOGGERS = ("httpx", *(f"httpcore.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")))


def without_key(key: str, reply: Reply) -> Reply:
    """Return the reply without the key. Log-probabilities are dropped if their tokens spell it."""
    steps = reply.logprobs or []
    chosen = "".join(next(iter(step)) for step in steps)
    tokens = "\n".join(token for step in steps for token in step)
    return replace(
        reply,
        text=redact(key, reply.text),
        finish=reply.finish and redact(key, reply.finish),
        logprobs=None if contains(key, chosen) or contains(key, tokens) else reply.logprobs,
    )


class _KeyFilter(logging.Filter):
    """Removes the keys in some environment variables from log records."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        for name in tuple(self.names):
            key = os.environ.get(name, "").strip()
            if contains(key, message):
                message = redact(key, message)
                record.msg, record.args, record.exc_info = message, (), None
        return True


_FILTER, _LOCK = _KeyFilter(), Lock()


def hide_in_logs(key_env: str | None) -> None:
    """Keep the key in the environment variable `key_env` out of the HTTP client's logs from now on."""
    if key_env and key_env not in _FILTER.names:
        with _LOCK:
            _FILTER.names.add(key_env)
            for name in LOGGERS:
                logging.getLogger(name).addFilter(_FILTER)
