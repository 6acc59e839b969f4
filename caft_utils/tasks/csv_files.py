"""Read CSV files with commas, semicolons or tabs, as written by Excel, by pandas or by hand.

The delimiter is the one with which the header has the expected columns. Column names match regardless of case
and surrounding space.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock

from caft_utils.text_files import half_pair, read_text

DELIMITERS = (",", ";", "\t")
_END = "\x1eend of file"  # no text file holds it as a line
_LIMIT = Lock()  # the csv module has one size limit for the whole process


def csv_rows(
    path: str | Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield the rows of a CSV file, each with a "file, row" text for error messages. Blank rows are left out.

    Args:
        columns: names that the header must have. optional: names that it may have.

    Raises:
        ValueError: no row, a missing column, a column given twice, a row with more values than columns, or a
            quote that is never closed; or the file is not text (see `text_files.read_text`).
    """
    header, rows = _read(path, columns, optional)
    number = 0
    for values in rows:
        if not values:
            continue
        number += 1
        where = f"{path}, row {number}"
        if len(values) > len(header):
            raise ValueError(f"{where}: more values than the {len(header)} columns")
        if half := half_pair(values):
            raise ValueError(f"{where}: has a lone surrogate, {half} (an emoji cut in two); repair it")
        yield where, dict(zip(header, [*values, *[None] * (len(header) - len(values))], strict=True))
    if not number:
        raise ValueError(f"{path}: no row found under the header")


def required_field(row: Mapping[str, str | None], name: str, where: str) -> str:
    """Return a value without surrounding space. Raises ValueError if the column or its value is missing."""
    if row.get(name) is None:
        problem = "the row is shorter than the header" if name in row else "the header has none"
        raise ValueError(f"{where}: no column {name!r}; {problem}")
    if not (text := row[name].strip()):
        raise ValueError(f"{where}: {name!r} is empty")
    return text


def _read(
    path: str | Path, columns: Sequence[str], optional: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows. The header spells known columns as in `columns` and `optional`."""
    text = read_text(path)
    chosen = DELIMITERS
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:  # the delimiter, for Excel
        chosen, text = (first.strip()[4],), rest
    seen: list[str] = []
    for delimiter in chosen:
        header, rows = _parse(text, delimiter, str(path))
        header = [_column(name, (*columns, *optional)) for name in header]
        if not [name for name in columns if name not in header]:
            if twice := sorted({name for name in header if name and header.count(name) > 1}):
                raise ValueError(f"{path}, header: column {', '.join(twice)} is given twice")
            return header, rows
        seen = max(seen, header, key=len)
    missing = [name for name in columns if name not in seen]
    raise ValueError(f"{path}, header: no column {', '.join(missing)}; there are {', '.join(seen) or 'none'}")


def _parse(text: str, delimiter: str, name: str) -> tuple[list[str], list[list[str]]]:
    """Return the first row and the others. Row 0 in errors is the header."""
    lines = [*io.StringIO(text if text.endswith(("\n", "\r")) else text + "\n", newline=""), _END]
    rows: list[list[str]] = []
    with _LIMIT:
        limit = csv.field_size_limit(2**31 - 1)
        try:
            for row in csv.reader(lines, delimiter=delimiter):
                rows.append(row)
        except csv.Error as error:
            raise ValueError(f"{name}, row {sum(map(bool, rows))}: {error}") from None
        finally:
            csv.field_size_limit(limit)
    if rows.pop() != [_END]:
        row = sum(map(bool, rows))
        raise ValueError(f"{name}, row {row}: a quote is opened and never closed")
    header = next((row for row in rows if row), [])
    return header, rows[rows.index(header) + 1 :] if header else []


def _column(name: str, known: Sequence[str]) -> str:
    """Return the known name that matches a header's name, else the name without surrounding space."""
    bare = name.strip()
    if bare in known:
        return bare
    alike = [each for each in known if each.casefold() == bare.casefold()]
    return alike[0] if len(alike) == 1 else bare
