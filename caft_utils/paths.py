"""The location of the project's data: classroom checkpoints, concepts, annotations and records."""

from __future__ import annotations

import os
from pathlib import Path


def data_path(*parts: str) -> Path:
    """Return the path of a shipped data file or folder, for example `data_path("results", "cues.json")`.

    The data folder is the environment's CAFT_DATA, else `data/` inside an installed package, else `data/` in
    the repository.
    """
    if folder := os.environ.get("CAFT_DATA"):
        return Path(folder, *parts)
    package = Path(__file__).parent
    installed = package / "data"
    return (installed if installed.is_dir() else package.parent / "data").joinpath(*parts)
