"""Read rows with a label and a spurious value from a table: a file, or a data set on the Hugging Face hub.

The table needs columns for the text (one, or several such as premise and hypothesis), for the label, and for
the spurious value. Which label goes with a value is either given, or read off rows in which both are
correlated: the most frequent label of each value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caft_utils.arguments import text, texts
from caft_utils.tasks.focus.examples import FocusExample

READERS = {".csv": "read_csv", ".tsv": "read_table", ".jsonl": "read_json", ".parquet": "read_parquet"}


def published_examples(
    place: str | Path,
    *,
    columns: Sequence[str],
    label: str,
    value: str,
    core: str,
    spurious: str,
    file: str | None = None,
    revision: str | None = None,
    label_names: Mapping[Any, str] | None = None,
    labels_of_values: Mapping[str, str] | None = None,
    template: str | None = None,
) -> list[FocusExample]:
    """Return the rows of a published table as examples, in its order.

    Args:
        place: a file (CSV, TSV, JSON lines, parquet), or the id of a data set on the hub, as "owner/name".
        columns: the columns of the text; `template` puts them together, by default one in a line.
        label, value: the columns of the label and of the spurious value.
        core, spurious: what instructions call the two features.
        file, revision: the file of the data set on the hub, and its commit.
        label_names: {what the label column holds: label}, for labels stored as numbers.
        labels_of_values: {spurious value: y_s}; default: the most frequent label of each value.
        template: a text with {column} slots.

    Raises:
        FileNotFoundError: no such file, and `place` is no id with a `file`.
        ConnectionError: the hub cannot be reached.
        ValueError: a column is missing, a field is empty, or a value or a label has no name.
    """
    columns = texts("columns", columns)
    path = _path(place, file, revision)
    table = _table(path)
    if missing := [name for name in (*columns, label, value) if name not in table.columns]:
        raise ValueError(f"{path}: no column {', '.join(missing)}; there are {', '.join(table.columns)}")
    template = template or "\n".join(f"{{{name}}}" for name in columns)
    rows = []
    for number, row in enumerate(table.to_dict("records"), 1):
        where = f"{path}, row {number}"
        fields = {name: text(f"{where}: {name!r}", str(row[name]).strip()) for name in columns}
        named = row[label] if label_names is None else label_names.get(row[label])
        if named is None or named != named:
            raise ValueError(f"{where}: the label {row[label]!r} has no name; give it in label_names")
        rows.append((template.format(**fields), str(named), str(row[value])))
    if labels_of_values is None:
        labels_of_values = _most_frequent(rows)
    if unknown := {one for *_, one in rows} - set(labels_of_values):
        raise ValueError(f"{path}: no label is given for the values {', '.join(sorted(unknown))}")
    labels = tuple(sorted({one for _, one, _ in rows} | set(labels_of_values.values())))
    return [
        FocusExample(shown, own, labels_of_values[one], labels, core, spurious, one)
        for shown, own, one in rows
    ]


def _most_frequent(rows: Sequence[tuple[str, str, str]]) -> dict[str, str]:
    """Return {value: its most frequent label}. ValueError: two labels of a value are equally frequent."""
    out = {}
    for value in sorted({one for *_, one in rows}):
        counts = Counter(label for _, label, one in rows if one == value).most_common(2)
        if len(counts) == 2 and counts[0][1] == counts[1][1]:
            raise ValueError(
                f"the value {value!r} has the labels {counts[0][0]!r} and {counts[1][0]!r} equally often; "
                "say in labels_of_values which label goes with each value"
            )
        out[value] = counts[0][0]
    return out


def _path(place: str | Path, file: str | None, revision: str | None) -> Path:
    if Path(place).is_file():
        return Path(place)
    if file is None:
        raise FileNotFoundError(
            f"no file {place}; for a data set on the hub give its id as `place` and its table as `file`"
        )
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(str(place), file, repo_type="dataset", revision=revision))
    except Exception as error:  # network, hub or offline mode: the remedy is the same
        raise ConnectionError(
            f"{file} of {place} could not be downloaded ({type(error).__name__}: {error}). Save the table, "
            "and give its path as `place`"
        ) from error


def _table(path: Path) -> Any:
    import pandas

    if path.suffix not in READERS:
        raise ValueError(f"{path}: expected a file {', '.join(READERS)}")
    options = {"lines": True} if path.suffix == ".jsonl" else {}
    return getattr(pandas, READERS[path.suffix])(path, **options)
