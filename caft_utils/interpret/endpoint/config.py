"""Settings of the HTTP client: rate limit, parallel requests, retries and time limits."""

from __future__ import annotations

from dataclasses import dataclass

from caft_utils.arguments import number, numbers, whole


@dataclass(frozen=True)
class ClientConfig:
    """How an `Endpoint` sends its requests. None of these settings changes a reply or its cache entry.

    Attributes:
        per_minute: Requests per minute over all workers, evenly spaced. None sets no limit.
        workers: Requests in flight at once.
        timeout: Seconds for a whole reply.
        attempts: Attempts for each prompt, the first one included.
        backoff: First and longest wait between two attempts, in seconds. Waits double and are jittered.
        max_retry_after: Longest Retry-After to wait for, in seconds. A longer one is an error.

    Raises:
        ValueError: A setting is not a number above zero.
    """

    per_minute: float | None = None
    workers: int = 4
    timeout: float = 60.0
    attempts: int = 6
    backoff: tuple[float, float] = (1.0, 60.0)
    max_retry_after: float = 300.0

    def __post_init__(self):
        for name in ("per_minute", "timeout", "max_retry_after", "workers", "attempts"):
            value = getattr(self, name)
            if name != "per_minute" or value is not None:  # per_minute=None sets no limit
                value = number(name, value, above=0)
                value = whole(name, value) if name in ("workers", "attempts") else value
                object.__setattr__(self, name, value)
        backoff = tuple(numbers("backoff", self.backoff, 0))
        if len(backoff) != 2 or backoff[0] > backoff[1]:
            raise ValueError(f"backoff must be the first and the longest wait, got {self.backoff!r}")
        object.__setattr__(self, "backoff", backoff)
