"""Send one request over HTTP, with retries.

Transient failures are retried with exponential backoff and jitter: 408, 409, 425, 429 (after its
Retry-After), 5xx, timeouts, lost connections, and bodies that are truncated or are not JSON. Every other
failure raises an `EndpointError` at once. The API key is removed from everything that the server returns.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event
from typing import Any

from caft_utils.interpret.endpoint.api_key import (
    LONGEST_SEARCHED,
    contains,
    is_https,
    is_loopback,
    read_api_key,
    redact,
)
from caft_utils.interpret.endpoint.body import Body
from caft_utils.interpret.endpoint.config import ClientConfig
from caft_utils.interpret.endpoint.rate_limiter import RateLimiter
from caft_utils.interpret.endpoint.redaction import hide_in_logs, without_key
from caft_utils.interpret.endpoint.refusals import concerns_all_prompts, error_status
from caft_utils.interpret.endpoint.reply import EndpointError, Reply, parse_reply

RETRYABLE_STATUSES = (408, 409, 425, 429)  # and every status from 500
MAX_REPLY_BYTES = 2**23  # 4000 tokens with 20 alternatives each


class _TransientError(Exception):
    """An attempt failed, and another one may succeed."""


class RetryingTransport:
    """Sends requests to one URL. Threads that share a transport share its rate limit."""

    def __init__(self, url: str, key_env: str | None, config: ClientConfig):
        import httpx

        self.url, self.key_env, self.config = url, key_env, config
        self._limiter = RateLimiter(config.per_minute)
        # Loading the certificates is slow, and plain http needs none.
        self._verify = httpx.create_ssl_context() if is_https(url) else False

    def send(self, request: Mapping[str, Any], stop: Event) -> Reply:
        """Return the reply to a request. Setting `stop` ends a wait and prevents further attempts.

        Must be called from a thread without a running event loop.

        Raises:
            EndpointError: There is no reply after all attempts, or another attempt would not help.
        """
        import tenacity

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            stop=tenacity.stop_after_attempt(self.config.attempts),
            wait=tenacity.wait_exponential_jitter(
                multiplier=self.config.backoff[0], max=self.config.backoff[1], jitter=self.config.backoff[0]
            ),
            sleep=stop.wait,
            reraise=True,
        )
        try:
            return attempts(self._attempt, request, stop)
        except _TransientError as error:
            raise EndpointError(
                f"no reply from {self.url} in {self.config.attempts} attempts; the last one: {error}"
            ) from None

    def _attempt(self, request: Mapping[str, Any], stop: Event) -> Reply:
        stop.wait(self._limiter.reserve())
        if stop.is_set():
            raise EndpointError("interrupted before the request was sent")
        try:
            return self._exchange(request)
        except Exception as error:
            # Drop the frames that hold the key, because some tools print the variables of a traceback.
            error.__context__ = error.__cause__ = None
            raise error.with_traceback(None) from None

    def _exchange(self, request: Mapping[str, Any]) -> Reply:
        """Send the request once, and return the reply without the key."""
        key = read_api_key(self.key_env, self.url)
        if contains(key, json.dumps(request)):
            raise EndpointError(
                f"the request holds the key in ${self.key_env} and would be stored; remove it"
            )
        import httpx

        try:
            status, retry_after, body = asyncio.run(self._post(key, request))
        except TimeoutError:
            raise _TransientError(f"no whole reply within {self.config.timeout:g} s") from None
        except (httpx.RequestError, zlib.error) as error:
            raise _TransientError(f"{type(error).__name__}: {_shown(key, str(error))}") from None
        # Some servers send UTF-16, or UTF-8 with a byte order mark.
        text = body.decode(json.detect_encoding(body), errors="replace")
        status = error_status(text) if status == 200 else status
        if status != 200:
            raise self._refusal(status, retry_after, _shown(key, text))
        try:
            return without_key(key, parse_reply(text))
        except ValueError as error:
            raise _TransientError(f"{error}: {_shown(key, text)!r}") from None
        except EndpointError as error:
            raise EndpointError(f"{error}: {_shown(key, text)!r}", status=200) from None

    async def _post(self, key: str, request: Mapping[str, Any]) -> tuple[int, str | None, bytes]:
        """Return status, Retry-After and body of one response.

        It is asynchronous, because only cancellation limits the total time. The timeouts of httpx apply to
        each read, and a server may send its headers or its body byte by byte.
        """
        import httpx

        hide_in_logs(self.key_env)
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        # ASCII, because a prompt may contain lone surrogates, which UTF-8 cannot encode.
        content = json.dumps(request).encode("ascii")
        # Requests to this machine must not go through a proxy.
        client = httpx.AsyncClient(timeout=None, verify=self._verify, trust_env=not is_loopback(self.url))
        async with (
            asyncio.timeout(self.config.timeout),
            client,
            client.stream("POST", self.url, content=content, headers=headers) as response,
        ):
            body = Body(response.headers.get("content-encoding"), MAX_REPLY_BYTES)
            async for chunk in response.aiter_raw():
                body.add(chunk)
        return response.status_code, response.headers.get("retry-after"), bytes(body.content)

    def _refusal(self, status: int, retry_after: str | None, text: str) -> Exception:
        """Return the exception for a status other than 200."""
        message = f"status {status}: {text}"
        for_all = concerns_all_prompts(status, text)
        if (status in RETRYABLE_STATUSES or status >= 500) and not for_all:
            seconds = _retry_after_seconds(retry_after)
            if seconds > self.config.max_retry_after:
                return EndpointError(
                    f"{self.url} asks to wait {seconds:.0f} s, more than max_retry_after="
                    f"{self.config.max_retry_after:g}; {message}",
                    status=status,
                )
            self._limiter.pause(seconds)  # the limit applies to the account, so all workers wait
            return _TransientError(message)
        hint = f"; is the key in ${self.key_env} right?" if status in (401, 403) else ""
        message = f"{self.url} refused the request, {message}{hint}"
        return EndpointError(message, status=status, for_all=for_all)


def _shown(key: str, text: str) -> str:
    """Return the beginning of a server's text on one line and without the key, for an error message."""
    return redact(key, " ".join(text.split())[:LONGEST_SEARCHED])[:300]


def _retry_after_seconds(retry_after: str | None) -> float:
    """Return Retry-After, a number or a date, in seconds from now; 0 if it is missing or invalid."""
    if retry_after is None:
        return 0.0
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError, OverflowError):  # not a date, no time zone, or impossible
            return 0.0
    return seconds if seconds > 0 else 0.0  # NaN is not above zero
