"""How rates are printed."""

from __future__ import annotations

import pytest

from caft_utils.formatting import format_rate


@pytest.mark.parametrize(
    "arguments, text",
    [
        ((0.024,), "2.4 %"),
        ((0.024, 0.018, 0.03), "2.4 % [1.8, 3.0]"),
        ((1.0, 0.9966, 1.0, 2), "100.00 % [99.66, 100.00]"),
        ((0.5, 0.1, 0.9, 0), "50 % [10, 90]"),
        ((0.5, None, 0.9), "50.0 %"),
        ((float("nan"), 0.0, 1.0), "not measured"),
    ],
)
def test_format_rate(arguments, text):
    assert format_rate(*arguments) == text
