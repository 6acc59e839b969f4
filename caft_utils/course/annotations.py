"""What a person ticked after reading: which components of which model, and the words given for them.

The ticks of the course's own reader are kept in data/readings.yaml, so that notebooks and claims can run
without anybody at the keyboard. The file says what its reader had seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from caft_utils.paths import data_path

FILE = data_path("readings.yaml")


@dataclass(frozen=True)
class Annotation:
    """ticks: layer -> components to ablate; names: (layer, component) -> what the reader called it."""

    ticks: dict[int, list[int]]
    names: dict[tuple[int, int], str]


def annotation(model: str, file: Path = FILE) -> Annotation:
    """The course's reading of a model's components. KeyError names the models that were read."""
    read = yaml.safe_load(file.read_text(encoding="utf-8"))
    model = "classroom-qwen" if model == "classroom" else model
    if model not in read:
        raise KeyError(
            f"nobody has read the components of {model!r} yet; read are {', '.join(read)}: tick your own"
        )
    entry = read[model]
    names = {(layer, i): name for layer, by in entry["names"].items() for i, name in by.items()}
    return Annotation({layer: list(ticks) for layer, ticks in entry["ticks"].items()}, names)
