"""Published task data: where it is, and whether a copy of it is the one that this project was tested with.

data/sources.yaml holds for each set where it is on the Hugging Face hub, what its licence says, and a
checksum of its ROWS, which does not depend on the kind of file or on the revision. Nothing of it is shipped:
it is downloaded when a user asks for it, or read from the user's own copy.
"""

from __future__ import annotations

import csv
import functools
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from caft_utils.paths import data_path
from caft_utils.store import Store, default_store, digest

FILE = data_path("sources.yaml")
UNKNOWN = "not recorded"
TABLES: dict[str, tuple[str, dict[str, Any]]] = {  # by which function of pandas, with what
    ".csv": ("read_csv", {"dtype": str, "keep_default_na": False}),
    ".parquet": ("read_parquet", {}),
    ".jsonl": ("read_json", {"lines": True}),
}


@functools.cache
def sources() -> dict[str, dict[str, Any]]:
    """What data/sources.yaml says, by name."""
    import yaml

    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def published_file(
    name: str,
    path: str | Path | None = None,
    *,
    source: Mapping[str, Any] | None = None,
    store: Store | None = None,
) -> Path:
    """The CSV file of a published set, its rows checked: the user's copy, or downloaded into the store once.

    A download has `source.json` beside it: data set, commit, file, the file's sha256, and the licence, which
    a warning tells as well.

    Args:
        name: of data/sources.yaml ("verbs", "sentiment", "pronouns", "gender", ...).
        path: a copy that is there already; nothing is downloaded then.
        source: what is known about the set, instead of the file's entry.

    Raises:
        KeyError: no such name. FileNotFoundError: no file at `path`.
        ValueError: the data set holds no table or several, or its rows are others than recorded.
        ConnectionError: the download failed, or HF_HUB_OFFLINE is set.
    """
    if source is None:
        if name not in sources():
            raise KeyError(f"no published set {name!r}; there are {', '.join(sources())}")
        source = sources()[name]
    if path is not None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {path}; expected the CSV file of {source['dataset']}")
        _check_rows(Path(path), source)
        return Path(path)

    def write(folder: Path) -> None:
        warnings.warn(f"{name} is {source['dataset']}. Licence: {source['licence']}", stacklevel=6)
        _download(source, folder)
        _check_rows(folder / "rows.csv", source)

    key = {field: source[field] for field in ("dataset", "revision", "columns", "rows_sha256")}
    return (store or default_store()).fetch("published", key, write) / "rows.csv"


def _download(source: Mapping[str, Any], folder: Path) -> None:
    import pandas
    from huggingface_hub import HfApi, hf_hub_download

    dataset, columns = source["dataset"], list(source["columns"])
    instead = f"Save the rows as a CSV file with the columns {', '.join(columns)} and pass its `path`"

    def asked(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except Exception as error:  # of the network, the hub, the disk or offline mode: the remedy is one
            why = f"{type(error).__name__}: {error}"
            raise ConnectionError(f"{dataset} could not be downloaded ({why}). {instead}") from error

    with tempfile.TemporaryDirectory() as cache:
        info = asked(HfApi().dataset_info, dataset, revision=source["revision"])
        found = [s.rfilename for s in info.siblings or [] if Path(s.rfilename).suffix in TABLES]
        if len(found) != 1:
            kinds = ", ".join(TABLES)
            raise ValueError(f"{dataset}: expected one table ({kinds}), found {found or 'none'}. {instead}")
        about = {"dataset": dataset, "revision": info.sha, "file": found[0], "licence": source["licence"]}
        where = {"repo_type": "dataset", "revision": info.sha, "cache_dir": cache}
        file = Path(asked(hf_hub_download, dataset, found[0], **where))
        about["sha256"] = sha256(file.read_bytes()).hexdigest()
        read, options = TABLES[file.suffix]
        rows = getattr(pandas, read)(file, **options)
    if missing := set(columns) - set(rows.columns):
        raise ValueError(f"{dataset}, {about['file']}: no column {', '.join(sorted(missing))}. {instead}")
    rows[columns].to_csv(folder / "rows.csv", index=False)
    (folder / "source.json").write_text(json.dumps(about, indent=1))


def _check_rows(path: Path, source: Mapping[str, Any]) -> None:
    """Compare the rows with the recorded number and checksum; where none is recorded, say so."""
    columns = source["columns"]
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if missing := set(columns) - set(reader.fieldnames or []):
            raise ValueError(f"{path}, header: no column {', '.join(sorted(missing))}")
        rows = [[row[column] for column in columns] for row in reader]
    if source["rows_sha256"] == UNKNOWN:
        warnings.warn(
            f"{path}: no checksum of its rows is recorded; they are taken as they are", stacklevel=3
        )
    elif digest(rows) != source["rows_sha256"]:
        raise ValueError(
            f"{path}: these are not the recorded rows: expected {source.get('rows')}, found {len(rows)}, or "
            "as many with other texts or in another order; read the file directly if it is meant to differ"
        )
