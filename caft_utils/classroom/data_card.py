"""The measured tables of the data card (data/classroom/README.md)."""

from __future__ import annotations

from pathlib import Path


def put_table(page: Path, table: str, name: str = "measured") -> None:
    """Put a table between the markers <!-- measured --> and <!-- /measured --> of a Markdown page."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = page.read_text(encoding="utf-8").split(start)
    after = rest.split(end)[1]
    page.write_text(f"{before}{start}\n{table}\n{end}{after}", encoding="utf-8")
