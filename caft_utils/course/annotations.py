"""Load the components of a model that a reader selected, and the reader's names for them.

data/annotations.yaml holds the selection of the course's own reader, so that notebooks and claims run
unattended. The file also describes what the reader was shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caft_utils.arguments import key_number, mapping, text, wholes
from caft_utils.paths import data_path
from caft_utils.text_files import read_yaml

FILE = data_path("annotations.yaml")


@dataclass(frozen=True)
class Annotation:
    """A reader's selection of components, and their names.

    selection: {layer: components to ablate}. names: {(layer, component): the reader's words for it}.
    """

    selection: dict[int, list[int]]
    names: dict[tuple[int, int], str]

    @property
    def ticks(self) -> dict[int, list[int]]:
        """The selection, under the name that recorded notebooks and the YAML file use."""
        return self.selection


def annotation(model: str, file: Path = FILE) -> Annotation:
    """Return the course's annotation of a model's components.

    Raises:
        KeyError: nobody has read the model's components; the message lists the models that were read.
        ValueError: the entry is not of the format above; the message names the file and the field.
    """
    content = mapping(str(file), read_yaml(file))
    model = "classroom-qwen" if model == "classroom" else model
    if model not in content:
        raise KeyError(
            f"nobody has read the components of {model!r} yet, only those of {', '.join(map(str, content))}; "
            "select your own in the explorer"
        )
    where = f"{file}, {model}"
    entry = mapping(where, content[model], needed=("ticks", "names"))
    names = {
        (layer, key_number(f"{at}: a component", i, 0)): text(f"{at}, component {i}", name)
        for layer, at, by_component in _by_layer(where, "names", entry["names"])
        for i, name in mapping(at, by_component).items()
    }
    by_layer = _by_layer(where, "ticks", entry["ticks"])
    return Annotation({layer: wholes(at, value, 0) for layer, at, value in by_layer}, names)


def _by_layer(where: str, field: str, value: Any) -> Iterator[tuple[int, str, Any]]:
    """Yield each layer of a field, the name of its entry in errors, and its value."""
    for layer, entry in mapping(f"{where}, {field}", value).items():
        layer = key_number(f"{where}, {field}: a layer", layer, -1)
        yield layer, f"{where}, {field}, layer {layer}", entry
