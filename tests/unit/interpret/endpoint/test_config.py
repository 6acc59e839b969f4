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
    ],
)
def test_limits_that_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Endpoint("https://h/v1", "m", **wrong)


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="per_hour"):
        Endpoint("https://h/v1", "m", per_hour=1)
