"""Records of measurements: data/results/<claim>.json, one row per model and condition.

A number that the README or a notebook states comes from a record, and a test in tests/claims measures the
record again. A record contains the seeds, the code version, the packages and the machine of the measurement.
"""

from __future__ import annotations

import json
import math
import os
import platform
import warnings
from collections.abc import Mapping
from datetime import date
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caft_utils.arguments import mapping
from caft_utils.disk import file_lock, write_atomically
from caft_utils.paths import data_path
from caft_utils.text_files import half_pair, read_json

if TYPE_CHECKING:
    from pandas import DataFrame

FOLDER = data_path("results")


def code_version() -> str:
    """Return the first 12 digits of a sha256 over all sources of the package."""
    root, hashed = Path(__file__).parents[1], sha256()
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.yaml")]):
        hashed.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return hashed.hexdigest()[:12]


def machine_name() -> str:
    """Return a description of this machine: the GPU, if there is one, else the number of cores."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {version('torch')}"
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"


def save_record(
    claim: str, rows: list[dict[str, Any]], *, seconds: float, folder: Path = FOLDER, **more: Any
) -> Path:
    """Write a record atomically and return its path.

    Rows of models that were not measured this time are kept, including rows that another process is writing.
    A record that cannot be read is moved aside with a warning.

    Args:
        rows: each with "model" and "condition".
        seconds: duration of the measurement.
        more: further entries of the file.

    Raises:
        ValueError: a row has a number that is NaN or infinite.
    """
    for row in rows:
        check_numbers(f"the row of {row['model']!r}, {row['condition']!r}", row)
    path = folder / f"{claim}.json"
    measured = {row["model"] for row in rows}
    rows = [{**row, "made": circumstances(seconds)} for row in rows]
    with file_lock(path):
        rows += [row for row in _rows_there(claim, folder) if row["model"] not in measured]
        return write_atomically(path, json.dumps({"claim": claim, **more, "rows": rows}, indent=1) + "\n")


def circumstances(seconds: float) -> dict[str, Any]:
    """Return code version, date, packages and machine of a measurement that took `seconds`."""
    return {
        "code": code_version(),
        "date": date.today().isoformat(),
        "seconds": round(seconds),
        "packages": {name: version(name) for name in ("torch", "transformers", "peft")},
        "machine": machine_name(),
    }


def check_numbers(where: str, value: Any) -> None:
    """Raise ValueError if a number anywhere in a JSON value is NaN or infinite, and name its place."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, which is not a measurement; leave it out or store None")
    entries = (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    for name, entry in entries:
        check_numbers(f"{where}, {name}", entry)


def load_record(claim: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Read a record.

    Raises:
        FileNotFoundError: the claim was not measured; the message names the command that measures it.
        ValueError: the file is damaged or not a record; the message names file and row.
    """
    path = folder / f"{claim}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; `make claims CLAIM={claim}` measures and writes it")
    remedy = f"; take it from the repository again, or measure it with `make claims CLAIM={claim}`"
    try:
        record = mapping(str(path), read_json(path), needed=("rows",))
        if not isinstance(record["rows"], list):
            raise ValueError(f"{path}: rows must be a list, got {record['rows']!r:.80}")
        for number, entry in enumerate(record["rows"]):
            mapping(f"{path}, row {number}", entry, needed=("model", "condition"))
            if half := half_pair(entry):
                raise ValueError(f"{path}, row {number}: has a lone surrogate, {half} (an emoji cut in two)")
    except ValueError as error:
        raise ValueError(f"{error}{remedy}") from error
    return record


def _rows_there(claim: str, folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a record, or no rows if there is none. A damaged record is moved aside."""
    path = folder / f"{claim}.json"
    if not path.exists():
        return []
    try:
        return load_record(claim, folder)["rows"]
    except ValueError as error:
        aside = path.with_name(f"{path.name}.damaged")
        warnings.warn(f"{error}. Its content is kept in {aside}", stacklevel=3)
        path.replace(aside)
        return []


def record_frame(claim: str, folder: Path = FOLDER) -> DataFrame:
    """Read the rows of a record as a table with one column per entry. Missing entries are NaN."""
    from pandas import DataFrame

    return DataFrame(load_record(claim, folder)["rows"])


def rate_columns(of: dict[str, Any], **rates: str) -> dict[str, float]:
    """Return rates of a row as columns of a figure: `name`, `name_low` and `name_high` for each.

    Args:
        of: a row of a record, whose rates are [value, low, high].
        rates: the rate of the row for each name, such as right="ood_accuracy".
    """
    return {
        f"{name}{end}": value
        for name, rate in rates.items()
        for end, value in zip(("", "_low", "_high"), of[rate], strict=True)
    }


def row(record: dict[str, Any], model: str, condition: str) -> dict[str, Any]:
    """Return the only row of a model and condition.

    Raises:
        KeyError: there is no such row, or more than one; the message lists the available rows.
    """
    rows = [r for r in record["rows"] if (r["model"], r["condition"]) == (model, condition)]
    if len(rows) != 1:
        there = [(r["model"], r["condition"]) for r in record["rows"]]
        raise KeyError(f"{'no' if not rows else 'more than one'} row {(model, condition)}; there are {there}")
    return rows[0]
