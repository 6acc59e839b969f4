"""HTTP transport of one request, with retries.

Transient failures are tried again after waits that double, with jitter so that workers do not return all at
once: 408, 409, 425, 429 (after its Retry-After), 5xx, timeouts, lost connections, bodies that are cut short
or are not JSON. Every other failure raises an `EndpointError` at once. The API key is removed from whatever
the server sends back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event
from typing import Any

from caft_utils.interpret.endpoint.api_key import is_https, is_loopback, read_api_key, redact
from caft_utils.interpret.endpoint.config import ClientConfig
from caft_utils.interpret.endpoint.rate_limiter import RateLimiter
from caft_utils.interpret.endpoint.reply import EndpointError, Reply, parse_reply

RETRYABLE_STATUSES = (408, 409, 425, 429)  # and every status from 500
STATUSES_FOR_ALL_PROMPTS = (401, 402, 404)  # wrong key, nothing left to pay with, no such model
MAX_REPLY_BYTES = 2**25  # a thousand times the longest answer with its alternatives


class _TransientError(Exception):
    """An attempt failed, and another one may succeed."""


class RetryingTransport:
    """Sends requests to one URL. Threads that share a transport share its rate limit."""

    def __init__(self, url: str, key_env: str | None, config: ClientConfig):
        import httpx

        self.url, self.key_env, self.config = url, key_env, config
        self._limiter = RateLimiter(config.per_minute)
        # Loading the certificates takes a while, and http needs none.
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
        key = read_api_key(self.key_env, self.url)
        status, retry_after, body = asyncio.run(self._post(key, request))
        text = redact(key, body.decode("utf-8", errors="replace"))
        if status != 200:
            raise self._refusal(status, retry_after, text)
        try:
            return parse_reply(text)
        except ValueError as error:
            raise _TransientError(str(error)) from None

    async def _post(self, key: str, request: Mapping[str, Any]) -> tuple[int, str | None, bytes]:
        """Return status, Retry-After and body of one response.

        Asynchronous, because only a cancellation bounds the whole: httpx limits the time of each read, and a
        server may send its headers or its body byte by byte.
        """
        import httpx

        # A compressed body could grow a thousandfold before its size is seen.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        # ASCII, because a prompt may contain lone surrogates, which UTF-8 cannot encode.
        content, body = json.dumps(request).encode("ascii"), bytearray()
        # Requests to this machine itself must not go through a proxy.
        client = httpx.AsyncClient(timeout=None, verify=self._verify, trust_env=not is_loopback(self.url))
        try:
            async with (
                asyncio.timeout(self.config.timeout),
                client,
                client.stream("POST", self.url, content=content, headers=headers) as response,
            ):
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_REPLY_BYTES:
                        raise EndpointError(f"{self.url} sent more than {MAX_REPLY_BYTES} bytes", status=200)
        except TimeoutError:
            raise _TransientError(f"no whole reply within {self.config.timeout:g} s") from None
        except httpx.RequestError as error:
            # From None: the error holds the request, whose headers hold the key.
            raise _TransientError(f"{type(error).__name__}: {redact(key, str(error))}") from None
        return response.status_code, response.headers.get("retry-after"), bytes(body)

    def _refusal(self, status: int, retry_after: str | None, text: str) -> Exception:
        """Return the exception for a status other than 200."""
        message = f"status {status}: {' '.join(text.split())[:300]}"
        out_of_quota = "insufficient_quota" in text  # a 429 that waiting does not resolve
        if (status in RETRYABLE_STATUSES or status >= 500) and not out_of_quota:
            seconds = _retry_after_seconds(retry_after)
            if seconds > self.config.max_retry_after:
                return EndpointError(
                    f"{self.url} asks to wait {seconds:.0f} s, more than max_retry_after="
                    f"{self.config.max_retry_after:g}; {message}",
                    status=status,
                )
            self._limiter.pause(seconds)  # the limit is the account's, so all workers wait
            return _TransientError(message)
        hint = f"; is the key in ${self.key_env} right?" if status in (401, 403) else ""
        return EndpointError(
            f"{self.url} refused the request, {message}{hint}",
            status=status,
            for_all=out_of_quota or status in STATUSES_FOR_ALL_PROMPTS,
        )


def _retry_after_seconds(retry_after: str | None) -> float:
    """Return Retry-After, a number or a date, in seconds from now; 0 if it is missing or makes no sense."""
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
