"""Text of rates with intervals, of Markdown tables and of foreign labels, the same in figures and pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import isnan

from caft_utils.text_files import HALF_PAIR

# Control characters but tab and line ends, which no page may hold; half surrogate pairs, which no encoding
# takes; and the marks that turn the direction of the text after them.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    """Return a text that every page can hold: each character that none can becomes the sign \ufffd."""
    return UNPRINTABLE.sub("\ufffd", text)


def encodable(text: str) -> str:
    """Return a text that can be written: each half of a surrogate pair becomes the sign \ufffd."""
    return HALF_PAIR.sub("\ufffd", text)


def format_rate(value: float, low: float | None = None, high: float | None = None, digits: int = 1) -> str:
    """Return a share from 0 to 1 in percent, for example "2.4 % [1.8, 3.0]", or "2.4 %" without an interval.

    The rate of zero trials (NaN) is "not measured".
    """
    if isnan(value):
        return "not measured"
    text = f"{100 * value:.{digits}f} %"
    if low is None or high is None:
        return text
    return f"{text} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def format_estimate(value: float, low: float, high: float) -> str:
    """Return a figure with its interval, for example "0.98 [0.97, 0.99]"."""
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, one line per row, without a trailing newline.

    Cells are written with `str`; characters that Markdown would interpret are not escaped.

    Raises:
        ValueError: a row has more or fewer cells than the header.
    """
    lines = []
    for cells in (header, *rows):
        if len(cells) != len(header):
            raise ValueError(f"expected {len(header)} cells as in the header {header}, got {cells}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines.insert(1, "|" + "---|" * len(header))
    return "\n".join(lines)
