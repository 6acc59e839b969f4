"""Records of what was measured: data/results/<claim>.json, one row a model and condition.

A figure that the README or a notebook states comes from such a record, and the record from a test in
tests/claims, which measures it anew. A record names the seeds, the code, the packages and the machine that it
was measured with.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from caft_utils.paths import data_path

FOLDER = data_path("results")


def code_version() -> str:
    """First 12 digits of a sha256 of all sources of the package: which code measured this?"""
    root, hashed = Path(__file__).parents[1], sha256()
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.yaml")]):
        hashed.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return hashed.hexdigest()[:12]


def save_record(
    claim: str, rows: list[dict[str, Any]], *, seconds: float, folder: Path = FOLDER, **more: Any
) -> Path:
    """Write a record, whole or not at all; rows of a model that was not measured this time are kept."""
    path = folder / f"{claim}.json"
    measured = {row["model"] for row in rows}
    kept = (
        [r for r in load_record(claim, folder)["rows"] if r["model"] not in measured] if path.exists() else []
    )
    packages = {name: version(name) for name in ("torch", "transformers", "peft")}
    made = {
        "code": code_version(),
        "date": date.today().isoformat(),
        "seconds": round(seconds),
        "packages": packages,
    }
    made["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    rows = [{**row, "made": made} for row in rows] + kept
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"claim": claim, **more, "rows": rows}, indent=1) + "\n")
    part.replace(path)
    return path


def load_record(claim: str, folder: Path = FOLDER) -> dict[str, Any]:
    """A record as it was saved. FileNotFoundError says which command measures it."""
    path = folder / f"{claim}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; `make claims CLAIM={claim}` measures and writes it")
    return json.loads(path.read_text())


def row(record: dict[str, Any], model: str, condition: str) -> dict[str, Any]:
    """The one row of a model and condition. KeyError names those that there are."""
    found = [r for r in record["rows"] if (r["model"], r["condition"]) == (model, condition)]
    if len(found) != 1:
        raise KeyError(
            f"no row {(model, condition)}; there are {[(r['model'], r['condition']) for r in record['rows']]}"
        )
    return found[0]


def percent(estimate: list[float], digits: int = 1) -> str:
    """[value, low, high] as '2.4 % (1.8-3.0)'."""
    value, low, high = (100 * x for x in estimate)
    return f"{value:.{digits}f} % ({low:.{digits}f}-{high:.{digits}f})"


# Emergent misalignment as the authors measured it: model, condition, then in percent the misaligned share of
# coherent answers and the narrow task done. Means over seeds, recomputed from result tables published with
# arXiv 2507.16795 (section 4). Their judge is a language model; "narrow task": code that it calls vulnerable.
PAPER = (
    ("Qwen2.5-Coder-32B-Instruct", "plain", 7.0, 91.6),
    ("Qwen2.5-Coder-32B-Instruct", "CAFT, PCA", 0.4, 84.9),
    ("Qwen2.5-Coder-32B-Instruct", "random directions", 7.9, 90.6),
    ("Mistral-Small-24B-Instruct-2501", "plain", 6.6, 92.4),
    ("Mistral-Small-24B-Instruct-2501", "CAFT, PCA", 1.2, 92.2),
    ("Mistral-Small-24B-Instruct-2501", "random directions", 7.1, 92.7),
)
