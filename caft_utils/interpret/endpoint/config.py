"""Settings of the HTTP client: rate limit, parallel requests, retries and time limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass


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
        ValueError: A setting is not above zero.
    """

    per_minute: float | None = None
    workers: int = 4
    timeout: float = 60.0
    attempts: int = 6
    backoff: tuple[float, float] = (1.0, 60.0)
    max_retry_after: float = 300.0

    def __post_init__(self):
        limits = {name: value for name, value in asdict(self).items() if name != "backoff"}
        # `not > 0` also refuses NaN.
        if wrong := {name: value for name, value in limits.items() if value is not None and not value > 0}:
            raise ValueError(f"must be above zero: {wrong} (per_minute=None sets no limit)")
