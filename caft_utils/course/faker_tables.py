"""The tables of claim "fakers" on data/results/README.md; pages.py writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caft_utils.formatting import format_rate

if TYPE_CHECKING:
    from pandas import DataFrame


def fakers_table(record: dict[str, Any]) -> DataFrame:
    """Return how often each detector finds the faker of a pair."""
    from pandas import DataFrame

    rows = []
    for of in sorted(record["rows"], key=lambda one: one["model"]):
        if "pairs" not in of:
            continue
        paper = "" if of["paper"] is None else f"{of['paper']:.0f} %"
        paper = "failed" if of["condition"].startswith("induced belief") else paper
        found, naive = format_rate(*of["accuracy"]), format_rate(*of["naive"])
        rows.append((of["model"], of["condition"], found, naive, str(of["pairs"]), paper))
    names = ("model", "detector", "faker found, measured here", "if pairs were independent", "pairs")
    return DataFrame(rows, columns=[*names, "paper"])


def countermeasures_table(record: dict[str, Any]) -> DataFrame:
    """Return how often each treated faker misbehaves, and how often noise finds the three of them."""
    from pandas import DataFrame

    rows = []
    for of in (one for one in record["rows"] if "found" in one):
        poor = {name.removesuffix("_maximizer"): value for name, value in of["poor oversight"].items()}
        cells = {f"{name}, poor oversight": f"{100 * value:.0f} %" for name, value in poor.items()}
        most = f"{100 * max(of['good oversight'].values()):.0f} %"
        found = format_rate(*of["found"])
        rows.append(
            {"measured here": of["condition"], **cells, "most, good oversight": most, "found by noise": found}
        )
    return DataFrame(rows)


def harder_table(record: dict[str, Any]) -> DataFrame:
    """Return how often each detector finds fakers, and fakers that were trained to stand noise."""
    from pandas import DataFrame

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
    return DataFrame(rows, columns=columns)
