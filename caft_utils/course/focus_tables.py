"""The README's tables of claim "focus"; pages.py writes them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from caft_utils.course.paper_results import PAPER_FOCUS
from caft_utils.course.table_frames import Record, frame_by_column, seeds_measured, text_frame
from caft_utils.formatting import format_rate
from caft_utils.tasks.focus import CORE_TYPES, SPURIOUS_TYPES

if TYPE_CHECKING:
    from pandas import DataFrame

SETTINGS = ("speakers", "keywords")  # of the classroom and of the real model
STANDARD, UNSEEN = ("iid", "high", "low", "flipped"), ("unseen values",)
METHODS = ("FIT", "SFT(y_focus)", "SFT(y)", "few-shot", "zero-shot")
ASKED = ("asked for the core", "asked for the spurious feature")
SHOWN = {"FIT": ("ignore(S)", "focus(S)")}  # instruction types in the table over rho; without: none given


def focus_table(record: Record) -> DataFrame:
    """Return focus accuracy by what is asked for: the lowest and the highest over splits and types."""
    of = {(r["setting"], r["condition"]): r for r in record["rows"]}
    rows = [("7B to 13B, SMNLI", name, *cells, "paper") for name, cells in PAPER_FOCUS.items()]
    for measured in (of[one] for one in itertools.product(SETTINGS, METHODS) if one in of):
        cells = [
            _least_and_most(measured["rates"], splits, kinds)
            for splits in (STANDARD, UNSEEN)
            for kinds in (CORE_TYPES, SPURIOUS_TYPES)
        ]
        rows.append((measured["model"], measured["condition"], *cells, seeds_measured(measured)))
    columns = ("model", "method", *ASKED, *(f"unseen values, {one}" for one in ASKED), "from")
    return text_frame(rows, *columns)


def focus_features_table(record: Record) -> DataFrame:
    """Return FIT's focus accuracy by instruction type, for features of training and for a new one."""
    (of,) = (r for r in record["rows"] if r["setting"] == "subjects" and r["condition"] == "FIT")
    kinds = dict.fromkeys(name.split(": ")[1] for name in of["rates"])
    splits = dict.fromkeys(name.split(": ")[0] for name in of["rates"])
    rows = [
        (kind, *(format_rate(*of["rates"][f"{split}: {kind}"], digits=0) for split in splits))
        for kind in kinds
    ]
    return text_frame(rows, "measured here", *splits)


def focus_rho_table(record: Record) -> DataFrame:
    """Return, for each rho in training, the right answers where the two features disagree."""
    columns: dict[str, dict[str, str]] = {}
    for of in (r for r in record["rows"] if r["setting"].startswith("rho")):
        for kind in SHOWN.get(of["condition"], ("empty",)):
            name = of["condition"] if kind == "empty" else f"{of['condition']}, {kind}"
            rate = format_rate(*of["rates"][f"conflict: {kind}"], digits=0)
            columns.setdefault(of["setting"], {})[name] = rate
    every = dict.fromkeys(name for cells in columns.values() for name in cells)
    filled = {rho: {name: cells.get(name, "") for name in every} for rho, cells in columns.items()}
    return frame_by_column("measured here", filled)


def _least_and_most(rates: dict[str, Any], splits: tuple[str, ...], kinds: tuple[str, ...]) -> str:
    """Return the lowest rate over splits and instruction types with its interval, and the highest."""
    values = sorted(rates[f"{split}: {kind}"] for split in splits for kind in kinds)
    return f"{format_rate(*values[0], digits=0)} to {100 * values[-1][0]:.0f} %"
