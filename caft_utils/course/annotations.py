"""The components of a model that a reader selected, and a name for each.

data/annotations.yaml holds the selection of the course's own reader, so that notebooks and claims run
unattended. The file says what its reader was shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from caft_utils.paths import data_path

FILE = data_path("annotations.yaml")


@dataclass(frozen=True)
class Annotation:
    """ticks: layer -> components to ablate. names: (layer, component) -> the reader's words for it."""

    ticks: dict[int, list[int]]
    names: dict[tuple[int, int], str]


def annotation(model: str, file: Path = FILE) -> Annotation:
    """Return the course's annotation of a model's components.

    Raises:
        KeyError: nobody has read the model's components; the message lists the models that were read.
    """
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    model = "classroom-qwen" if model == "classroom" else model
    if model not in content:
        raise KeyError(
            f"nobody has read the components of {model!r} yet, only those of {', '.join(content)}; "
            "select your own in the explorer"
        )
    entry = content[model]
    names = {(layer, i): name for layer, by in entry["names"].items() for i, name in by.items()}
    return Annotation({layer: list(ticks) for layer, ticks in entry["ticks"].items()}, names)
