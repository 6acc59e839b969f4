"""Text of rates and of Markdown tables."""

from __future__ import annotations

import pytest

from caft_utils.formatting import encodable, format_rate, markdown_table, printable


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


def test_a_table_has_a_rule_under_its_header_and_empty_cells():
    assert markdown_table(["", "a"], [["x", 1], ["y", ""]]) == "|  | a |\n|---|---|\n| x | 1 |\n| y |  |"


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="expected 2 cells"):
        markdown_table(["", "a"], [["x", 1, 2]])


def test_foreign_text_can_be_shown_and_written():
    foreign = "a\x00b\x1b[0m\u202ec\ud83d"
    assert printable(foreign) == "a\ufffdb\ufffd[0m\ufffdc\ufffd" and printable("é\t\n你😀") == "é\t\n你😀"
    assert encodable(foreign).encode() and encodable(foreign)[:3] == "a\x00b"
