"""Settings of the client are checked before anything is sent."""

from __future__ import annotations

import pytest

from caft_utils.interpret.endpoint import Endpoint


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"attempts": 0},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"per_minute": 0},
        {"max_retry_after": -1},
        {"workers": 2.5},
        {"attempts": True},
        {"timeout": float("inf")},
        {"per_minute": "many"},
        {"backoff": (2, 1)},
        {"backoff": 1},
        {"price": (1,)},
        {"price": ("a", "b")},
    ],
)
def test_limits_that_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Endpoint("https://h/v1", "m", **wrong)


@pytest.mark.parametrize(
    "wrong", [{"max_tokens": 0}, {"temperature": -1}, {"seed": 0.5}, {"top_logprobs": True}]
)
def test_settings_of_a_request_that_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Endpoint("https://h/v1", "m").estimate([[{"role": "user", "content": "a"}]], **wrong)


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="per_hour"):
        Endpoint("https://h/v1", "m", per_hour=1)
