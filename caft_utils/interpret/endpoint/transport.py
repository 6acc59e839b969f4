"""One request to a server, sent with patience.

What may pass is tried again, after waits that double, with jitter so that workers do not come back all at
once: 429 (after its Retry-After), 5xx, timeouts, lost connections, bodies that are cut short or are no JSON.
What cannot pass is an `EndpointError` at once. The key is read from the environment when a request leaves; it
is held nowhere, and cut out of whatever the server sends back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event, Lock
from typing import Any
from urllib.parse import urlsplit

from caft_utils.interpret.endpoint.response_cache import EndpointError, Reply, parse

AGAIN = (408, 409, 425, 429)  # and all from 500 on
SAME_FOR_ALL = (401, 402, 404)  # wrong key, nothing left to pay with, no such model: other prompts fail alike
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _Again(Exception):
    """An attempt failed, another one may not."""


@dataclass
class Sender:
    """Sends requests to `url`; fields as in `Endpoint`. Threads may share one, and its rate limit."""

    url: str
    key_env: str | None
    per_minute: float | None
    attempts: int
    backoff: tuple[float, float]
    patience: float
    timeout: float
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)
    _next: float = field(default=0.0, init=False, repr=False)  # when the next request may leave

    def __post_init__(self):
        import httpx

        parts = urlsplit(self.url)
        self._client = httpx.Client(
            timeout=self.timeout,
            trust_env=parts.hostname not in LOOPBACK,  # this machine is not reached through a proxy
            verify=parts.scheme == "https",  # reading all certificates takes a while; http has none to verify
        )

    def send(self, request: Mapping[str, Any], stop: Event) -> Reply:
        """The reply to a request. `stop`, once set, ends waits and allows no further attempt.

        Raises:
            EndpointError: no reply, after all attempts or because another attempt would not help.
        """
        import tenacity

        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_exponential_jitter(
                multiplier=self.backoff[0], max=self.backoff[1], jitter=self.backoff[0]
            ),
            sleep=stop.wait,
            reraise=True,
        )
        try:
            return tries(self._attempt, request, stop)
        except _Again as error:
            raise EndpointError(
                f"no reply from {self.url} in {self.attempts} attempts; the last one: {error}"
            ) from None

    def _attempt(self, request: Mapping[str, Any], stop: Event) -> Reply:
        import httpx

        self._take_turn(stop)
        if stop.is_set():
            raise EndpointError("interrupted before it was asked")
        key, body = self._key(), b""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        deadline = time.monotonic() + self.timeout
        try:
            with self._client.stream("POST", self.url, json=request, headers=headers) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() > deadline:  # httpx's own limit is for each piece of a body
                        raise _Again(f"no whole answer within {self.timeout:g} s")
        except httpx.RequestError as error:
            # From None: the error holds the request, whose headers hold the key.
            raise _Again(f"{type(error).__name__}: {_without(key, str(error))}") from None
        text = _without(key, body.decode("utf-8", errors="replace"))
        if response.status_code != 200:
            raise self._refusal(response.status_code, response.headers.get("retry-after"), text)
        try:
            return parse(text)
        except ValueError as error:
            raise _Again(str(error)) from None

    def _refusal(self, status: int, retry_after: str | None, text: str) -> Exception:
        """The exception for a status other than 200."""
        said = f"status {status}: {' '.join(text.split())[:300]}"
        broke = "insufficient_quota" in text  # comes as a 429, and no wait helps
        if (status in AGAIN or status >= 500) and not broke:
            after = _seconds(retry_after)
            if after is None:
                return _Again(said)
            if after > self.patience:
                return EndpointError(
                    f"{self.url} asks to wait {after:.0f} s, patience={self.patience:g}; {said}",
                    status=status,
                )
            with self._lock:  # of all workers the next attempt waits so long
                self._next = max(self._next, time.monotonic() + after)
            return _Again(said)
        hint = f"; is the key in ${self.key_env} right?" if status in (401, 403) else ""
        return EndpointError(
            f"{self.url} refused the request, {said}{hint}",
            status=status,
            for_all=broke or status in SAME_FOR_ALL,
        )

    def _take_turn(self, stop: Event) -> None:
        """Wait until a request may leave: evenly spaced, and not while the server wants to be left alone."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + (60 / self.per_minute if self.per_minute else 0)
        if start > now:
            stop.wait(start - now)

    def _key(self) -> str:
        key = os.environ.get(self.key_env or "", "").strip()
        if not all("!" <= sign <= "~" for sign in key):  # the HTTP library's own error would show it
            raise EndpointError(
                f"the key in ${self.key_env} holds a space or a sign outside ASCII", for_all=True
            )
        return key


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After as seconds from now: it is a number, or a date."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):  # neither, or a date without a time zone
        return None


def _without(key: str, text: str) -> str:
    return text.replace(key, "[key]") if len(key) >= 8 else text  # shorter ones are a local server's dummies
