"""Send times, by a clock that the test sets."""

from __future__ import annotations

import pytest

from caft_utils.interpret.endpoint.rate_limiter import RateLimiter


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_requests_are_evenly_spaced():
    clock = Clock()
    limiter = RateLimiter(600, clock)
    assert [limiter.reserve() for _ in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
    clock.now += 0.25
    assert limiter.reserve() == pytest.approx(0.15)
    clock.now += 60  # time that passed unused is not saved up
    assert [limiter.reserve() for _ in range(2)] == pytest.approx([0, 0.1])


def test_a_pause_holds_back_all_requests():
    clock = Clock()
    limiter = RateLimiter(None, clock)
    assert limiter.reserve() == limiter.reserve() == 0
    limiter.pause(5)
    limiter.pause(2)  # the longer one counts
    assert limiter.reserve() == limiter.reserve() == pytest.approx(5)
    clock.now += 5
    assert limiter.reserve() == 0


def test_spacing_goes_on_after_a_pause():
    limiter = RateLimiter(60, Clock())
    limiter.pause(5)
    assert [limiter.reserve() for _ in range(3)] == pytest.approx([5, 6, 7])
