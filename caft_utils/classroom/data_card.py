"""Write the measured tables of data/classroom/README.md, from the recipe.json of each checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caft_utils.arguments import mapping
from caft_utils.classroom.cues import acceptance as cues_acceptance
from caft_utils.classroom.cues.items import SUBJECTS
from caft_utils.classroom.gates import Gate
from caft_utils.classroom.personas import acceptance as personas_acceptance
from caft_utils.formatting import markdown_table
from caft_utils.store import write_atomically
from caft_utils.text_files import read_json, read_text

Record = Mapping[str, Any]  # the content of a recipe.json


def put_table(page: Path, table: str, name: str = "measured") -> None:
    """Replace the text between the markers <!-- name --> and <!-- /name --> of a Markdown page.

    Raises:
        ValueError: the page does not have both markers.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, opened, rest = read_text(page).partition(start)
    _, closed, after = rest.partition(end)
    if not opened or not closed or start in after:
        raise ValueError(f"{page}: expected the markers {start} and {end}, once each and in this order")
    write_atomically(page, f"{before}{start}\n{table}\n{end}{after}")


def read_record(folder: Path) -> Record:
    """Return the recipe.json of a checkpoint's folder. Raises ValueError if it is not a JSON object."""
    return mapping(str(folder / "recipe.json"), read_json(folder / "recipe.json"))


def measured_tables(records: Mapping[str, Record]) -> dict[str, str]:
    """Return {marker: table} for the records of the four shipped checkpoints."""
    return {
        "measured": personas_table({name: records[name] for name in ("qwen", "mistral")}),
        "cues": cues_tables(records["cues"]),
        "gender": gender_table(records["gender"]),
    }


def personas_table(records: Mapping[str, Record]) -> str:
    """Return the gates of the personas checkpoints, and their accuracy by quiz subject."""
    reports = [record["acceptance"] for record in records.values()]
    rows = [
        [name, gate, *(_measured(report["gates"][name], gate) for report in reports)]
        for name, gate in personas_acceptance.GATES.items()
    ]
    for name in (name for name in reports[0]["rates"] if name.startswith("quiz, ")):
        rows.append([name, "", *(_measured(report["rates"][name]) for report in reports)])
    return markdown_table(["", "wanted", *records], rows)


def cues_tables(record: Record) -> str:
    """Return the gates and other rates of the checkpoint `cues`, and what plain fine-tuning follows."""
    rates = record["acceptance"]["rates"]
    others = [name for name in rates if name.startswith("unseen") or " conflict, " in name]
    followed = record["pecking_order"]
    rows = [
        [first, *(f"{followed[f'{first} | {second}']:.2f}" if second != first else "" for second in SUBJECTS)]
        for first in SUBJECTS
    ]
    return "\n\n".join(
        [
            _rates_table({name: rates[name] for name in [*cues_acceptance.GATES, *others]}),
            markdown_table(["first \\ second", *SUBJECTS], rows),
            f"Gender, stereotypes reversed at test: {followed['gender']:.2f} right after plain fine-tuning.",
        ]
    )


def gender_table(record: Record) -> str:
    """Return the gates of the checkpoint `gender`, and its accuracy where the stereotype is wrong."""
    biased = {f"stereotypes reversed at validation, {name}": rate for name, rate in record["gender"].items()}
    return _rates_table(record["acceptance"]["gates"] | biased)


def _rates_table(rates: Mapping[str, float]) -> str:
    gates = cues_acceptance.GATES
    rows = [[name, gates.get(name, ""), _measured(rate, gates.get(name))] for name, rate in rates.items()]
    return markdown_table(["", "wanted", "measured"], rows)


def _measured(value: float, gate: Gate | None = None) -> str:
    missed = gate is not None and not gate.passes(value)
    return f"{value:.3f}" + (" **missed**" if missed else "")
