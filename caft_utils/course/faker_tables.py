"""The tables of claim "fakers" on data/results/README.md; pages.py writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caft_utils.course.table_frames import Record, text_frame
from caft_utils.formatting import format_rate

if TYPE_CHECKING:
    from pandas import DataFrame


def fakers_table(record: Record) -> DataFrame:
    """Return how often each detector finds the faker of a pair."""
    rows = []
    for of in sorted(record["rows"], key=lambda one: one["model"]):
        if "pairs" not in of:
            continue
        paper = "" if of["paper"] is None else f"{of['paper']:.0f} %"
        paper = "failed" if of["condition"].startswith("induced belief") else paper
        found, naive = format_rate(*of["accuracy"]), format_rate(*of["naive"])
        bases = of.get("by base", ())
        of_bases = ", ".join(f"{one['found']:g}" for one in bases)
        of_bases = f"{of_bases} of {bases[0]['pairs']}" if bases else ""
        undecided = f", {of['undecided']} undecided" if of.get("undecided") else ""
        pairs = f"{of['pairs']}{undecided}"
        rows.append((of["model"], of["condition"], found, naive, pairs, of_bases, paper))
    measured = ("faker found, measured here", "if pairs were independent", "pairs")
    return text_frame(rows, "model", "detector", *measured, "one run on each of three bases", "paper")


def countermeasures_table(record: Record) -> DataFrame:
    """Return how often each treated faker misbehaves, and how often noise finds the three of them."""
    treated = [one for one in record["rows"] if "found" in one]
    policies = list(treated[0]["poor oversight"])
    rows = []
    for of in treated:
        poor = [f"{100 * of['poor oversight'][policy]:.0f} %" for policy in policies]
        most = f"{100 * max(of['good oversight'].values()):.0f} %"
        rows.append((of["condition"], *poor, most, format_rate(*of["found"])))
    sides = (f"{policy.removesuffix('_maximizer')}, poor oversight" for policy in policies)
    return text_frame(rows, "measured here", *sides, "most, good oversight", "found by noise")


def harder_table(record: Record) -> DataFrame:
    """Return how often each detector finds fakers, and fakers that were trained to stand noise."""
    harder = [one for one in record["rows"] if "found by" in one]
    plain = {one["condition"]: one for one in record["rows"] if one["model"] == harder[0]["model"]}
    rows = [
        [
            name,
            format_rate(*plain[name]["accuracy"]),
            *(format_rate(*one["found by"][name]) for one in harder),
        ]
        for name in harder[0]["found by"]
    ]
    columns = ["measured here", "fakers of the benchmark", *(one["condition"] for one in harder)]
    return text_frame(rows, *columns)
