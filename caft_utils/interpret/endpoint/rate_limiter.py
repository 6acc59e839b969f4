"""Space the requests of all workers of an endpoint evenly."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock


class RateLimiter:
    """Reserves send times, evenly spaced and after any pause the server requested. Thread-safe.

    Args:
        per_minute: Requests per minute, None for no limit.
        clock: Monotonic time in seconds.
    """

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic):
        self._interval = 60 / per_minute if per_minute else 0.0
        self._clock, self._next, self._lock = clock, 0.0, Lock()

    def reserve(self) -> float:
        """Reserve the next send time and return the seconds to wait for it."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next)
            self._next = start + self._interval
            return start - now

    def pause(self, seconds: float) -> None:
        """Delay all later send times until at least `seconds` from now."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)
