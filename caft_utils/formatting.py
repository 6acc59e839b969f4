"""How a rate with its interval is printed: one format in tables, figures, notebooks and records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan


def format_rate(value: float, low: float | None = None, high: float | None = None, digits: int = 1) -> str:
    """Return a share in 0..1 as text, for example "2.4 % [1.8, 3.0]"; without an interval, "2.4 %".

    A rate of no trials (NaN) is "not measured".
    """
    if isnan(value):
        return "not measured"
    text = f"{100 * value:.{digits}f} %"
    if low is None or high is None:
        return text
    return f"{text} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, one line a row, without a final line feed.

    Cells are written with `str`; characters that Markdown would interpret are not escaped.

    Raises:
        ValueError: a row has another number of cells than the header.
    """
    lines = []
    for cells in (header, *rows):
        if len(cells) != len(header):
            raise ValueError(f"expected {len(header)} cells as in the header {header}, got {cells}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines.insert(1, "|" + "---|" * len(header))
    return "\n".join(lines)
