"""Text of rates and of Markdown tables."""

from __future__ import annotations

import pytest

from caft_utils.formatting import format_rate, markdown_table


def test_a_rate_with_and_without_an_interval():
    assert format_rate(0.024, 0.018, 0.03) == "2.4 % [1.8, 3.0]"
    assert format_rate(0.5) == "50.0 %"
    assert format_rate(float("nan"), 0, 1) == "not measured"


def test_a_table_has_a_rule_under_its_header_and_empty_cells():
    assert markdown_table(["", "a"], [["x", 1], ["y", ""]]) == "|  | a |\n|---|---|\n| x | 1 |\n| y |  |"


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="expected 2 cells"):
        markdown_table(["", "a"], [["x", 1, 2]])
