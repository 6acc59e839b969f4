"""The common form of the tables on the pages: text cells, the models of a record, and its seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from caft_utils.formatting import format_rate

if TYPE_CHECKING:
    from pandas import DataFrame

Record = dict[str, Any]


def seeds_measured(of: Record) -> str:
    """Return where a row's numbers are from, with the number of its seeds."""
    count = len(of["seeds"])
    return f"measured here, {count} seed{'s' * (count > 1)}"


def models_of(record: Record) -> list[str]:
    """Return the models of a record, in the order of their first rows."""
    return list(dict.fromkeys(r["model"] for r in record["rows"]))


def text_frame(rows: list[tuple[str, ...]], *columns: str) -> DataFrame:
    """Return rows of text cells as a table with these columns."""
    from pandas import DataFrame

    return DataFrame(rows, columns=list(columns))


def chosen_settings(
    rows: Iterable[Mapping[str, Any]], *rates: str, best: str, highest: bool = False
) -> list[tuple[str, ...]]:
    """Return the rows of a rivals' record on test questions as cells, sorted by the rate `best`.

    The cells are the chosen setting with the number of settings tried, each of `rates`, what the method was
    told, and the seeds.
    """
    test = sorted((of for of in rows if of["split"] == "test"), key=lambda of: of[best][0], reverse=highest)
    return [
        (
            f"{of['condition']} (of {of.get('chosen of', 1)})",
            *(format_rate(*of[rate]) for rate in rates),
            of.get("told", "nothing"),
            seeds_measured(of),
        )
        for of in test
    ]


def frame_by_column(label: str, columns: dict[str, dict[str, str]]) -> DataFrame:
    """Return {column: {row label: cell}} as a table whose first column has the labels."""
    from pandas import DataFrame

    return DataFrame(columns).rename_axis(label).reset_index()
