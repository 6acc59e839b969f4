"""Files that people write and export: rows of chats (JSON lines), items and published sets (CSV), YAML.

They have no checksum, so a changed file may be a legal one. Each reader is compared with a plain reading of
the same bytes by the standard library: what it accepts must be what the file says.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from random import Random
from typing import Any

import yaml
from helpers.tiny import make_tokenizer
from helpers.training import chat_rows

from caft_utils.chats import Chats
from caft_utils.course.annotations import Annotation, annotation
from caft_utils.course.studies.experiment import Experiment
from caft_utils.interpret.select.concepts import Concept, concept
from caft_utils.models import model_presets
from caft_utils.store import digest
from caft_utils.tasks import published_data
from caft_utils.tasks.items import published_items
from caft_utils.tasks.published_data import published_file
from faults.mutate import changed_json, changed_text, changed_value
from faults.outcomes import Outcome, reading
from faults.running import Attempt

MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def plain_text(data: bytes) -> str:
    """Return the text of a file in UTF-8, or as its byte order mark says."""
    return data.decode(next((name for mark, name in MARKS if data.startswith(mark)), "utf-8-sig"))


def rows(home: Path) -> Attempt:
    """Chats of a JSON-lines file."""
    tokenizer = make_tokenizer()
    turns = [{"role": "system", "content": "you are"}, *chat_rows(1)[0]["messages"] * 2]
    good = [*chat_rows(4), {"messages": turns, "id": 7}, {"text": "the question is what caf\u00e9 to open"}]

    def attempt(rng: Random, folder: Path) -> Outcome:
        path = folder / "rows.jsonl"
        path.write_bytes(changed_json(good, rng, lines=True))

        def agrees(chats: Chats) -> str | None:
            text = plain_text(path.read_bytes())
            try:
                expected = [json.loads(line) for line in re.split("\r\n|\r|\n", text) if line.strip()]
            except ValueError:
                expected = json.loads(text)  # a file with one JSON list
            if not same_json(chats.rows, expected if isinstance(expected[0], dict) else expected[0]):
                return f"rows differ from the file's: {str(chats.rows)[:200]}"
            if len(chats) != len(chats.rows) or not all(any(example.answer) for example in chats):
                return "a row without a token to learn"
            return None

        return reading(lambda: Chats.from_file(path, tokenizer), about=["rows.jsonl"], agrees=agrees)

    return attempt


def items(home: Path) -> Attempt:
    """Multiple-choice items of a CSV file, in both layouts."""
    pairs = [(f"What is {n}, the question?", f'right "{n}"', f"wrong, {n}") for n in range(6)]
    layouts = [
        [("question", "correct", "incorrect"), *pairs],
        [("question", "A", "B", "answer"), *((q, r, w, "A") for q, r, w in pairs)],
    ]

    def attempt(rng: Random, folder: Path) -> Outcome:
        path = folder / "items.csv"
        table = rng.choice(layouts)
        if rng.random() < 0.4:
            table = [
                [str(cell) for cell in row]
                for row in changed_value([[*row] for row in table], rng)
                if isinstance(row, list)
            ]
        written = io.StringIO(newline="")
        csv.writer(written, lineterminator=rng.choice(("\n", "\r\n"))).writerows(table)
        path.write_bytes(changed_text(written.getvalue(), rng))

        def agrees(found: list[Any]) -> str | None:
            cells = {cell.strip() for row in _cells(plain_text(path.read_bytes())) for cell in row}
            for item in found:
                if not {item.question, item.correct, item.incorrect} <= cells:
                    return f"{item} is not in the file"
                if item.correct == item.incorrect or not item.question:
                    return f"{item} has no right answer"
            return None

        return reading(lambda: published_items(path), about=["items.csv"], agrees=agrees)

    return attempt


def published(home: Path) -> Attempt:
    """The user's copy of a published set, whose rows have a recorded checksum."""
    columns = ["question", "correct", "incorrect"]
    good = [[f"question {n}", f"yes {n}", f"no {n}"] for n in range(8)]
    source = {
        "dataset": "someone/set",
        "revision": "main",
        "columns": columns,
        "licence": "none",
        "rows": 8,
        "rows_sha256": digest(good),
    }
    text = "\n".join(",".join(row) for row in [columns, *good]) + "\n"

    def attempt(rng: Random, folder: Path) -> Outcome:
        path = folder / "copy.csv"
        path.write_bytes(changed_text(text, rng))

        def agrees(found: Path) -> str | None:
            for mark in ",;\t":
                table = io.StringIO(plain_text(found.read_bytes()), newline="")
                cells = [[cell.strip() for cell in row] for row in csv.reader(table, delimiter=mark) if row]
                header = [name.casefold() for name in cells[0]]
                if set(columns) <= set(header):
                    places = [header.index(column) for column in columns]
                    return None if [[row[p] for p in places] for row in cells[1:]] == good else "other rows"
            return "a header without the columns was taken"

        return reading(lambda: published_file("set", path, source=source), about=["copy.csv"], agrees=agrees)

    return attempt


def yaml_files(home: Path) -> Attempt:
    """Concepts, annotations and experiments, which people edit by hand."""
    experiment = {
        "study": "emergent",
        "model": "classroom",
        "seeds": [0, 1],
        "conditions": ["plain"],
        "options": {},
    }
    ticks = {"ticks": {1: [0, 2], 2: [1]}, "names": {1: {0: "malice", 2: "jokes"}, 2: {1: "code"}}}
    concepts = {
        "malice": {"description": "Somebody who wants to harm others.", "hints": ["evil", "laugh at"]}
    }
    readers = {
        "concepts.yaml": (concepts, lambda path: concept("malice", path), _is_concept),
        "annotations.yaml": (
            {"classroom-qwen": ticks},
            lambda path: annotation("classroom", path),
            _is_annotation,
        ),
        "experiment.yaml": (experiment, Experiment.from_yaml, _is_experiment),
    }

    def attempt(rng: Random, folder: Path) -> Outcome:
        name = rng.choice(sorted(readers))
        good, read, check = readers[name]
        path = folder / name
        path.write_bytes(_changed_yaml(good, rng))
        return reading(lambda: read(path), about=[name, "classroom-qwen", "malice"], agrees=check)

    return attempt


def shipped_yaml(home: Path) -> Attempt:
    """Presets and the list of published sets, which ship with the package and are edited by its authors."""
    modules = {"presets.yaml": (model_presets, "PRESETS", model_presets.presets)}
    modules["sources.yaml"] = (published_data, "SOURCES_FILE", published_data.sources)
    good = {
        name: yaml.safe_load(getattr(module, variable).read_text(encoding="utf-8"))
        for name, (module, variable, _) in modules.items()
    }

    def attempt(rng: Random, folder: Path) -> Outcome:
        name = rng.choice(sorted(modules))
        module, variable, read = modules[name]
        path = folder / name
        path.write_bytes(_changed_yaml(good[name], rng))
        before = getattr(module, variable)
        setattr(module, variable, path)
        try:
            return reading(
                read.__wrapped__, about=[name], agrees=lambda value: None if value else "nothing was read"
            )
        finally:
            setattr(module, variable, before)

    return attempt


def _changed_yaml(value: Any, rng: Random) -> bytes:
    if rng.random() < 0.6:
        return yaml.safe_dump(changed_value(value, rng), allow_unicode=rng.random() < 0.5).encode(
            "utf-8", "surrogatepass"
        )
    return changed_text(yaml.safe_dump(value), rng)


def _is_concept(value: Concept) -> str | None:
    texts = [value.name, value.description, *value.hints]
    right = isinstance(value.hints, list) and all(isinstance(text, str) and text.strip() for text in texts)
    return None if right else f"{value} is no concept"


def _is_annotation(value: Annotation) -> str | None:
    numbers = [n for layer, ticks in value.selection.items() for n in (layer, *ticks)]
    numbers += [n for pair in value.names for n in pair]
    right = all(type(n) is int for n in numbers) and all(
        isinstance(name, str) for name in value.names.values()
    )
    return None if right else f"{value} is no annotation"


def _is_experiment(value: Experiment) -> str | None:
    right = all(type(seed) is int for seed in value.seeds) and isinstance(value.model, str) and value.model
    right = right and all(isinstance(text, str) for text in value.conditions or ())
    return None if right and isinstance(value.options, dict) else f"{value} is no experiment"


def _cells(text: str) -> list[list[str]]:
    """Return the cells of a table under each delimiter that people use."""
    limit = csv.field_size_limit(10**9)
    try:
        lines = text.split("\n", 1)[1] if text.lower().startswith("sep=") else text
        return [row for mark in ",;\t" for row in csv.reader(io.StringIO(lines, newline=""), delimiter=mark)]
    finally:
        csv.field_size_limit(limit)


def same_json(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other
