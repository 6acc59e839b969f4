"""Download published task data, and check that a copy has the rows that this project was tested with.

data/sources.yaml gives the repository on the Hugging Face hub, the licence, and a checksum of the ROWS of
each set. The checksum does not depend on the file format or the revision. The project ships none of the data.
It is downloaded on request, or read from the user's own copy.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from caft_utils.arguments import mapping, texts
from caft_utils.disk import disk_problem
from caft_utils.paths import data_path
from caft_utils.store import Store, default_store, digest
from caft_utils.tasks.csv_files import csv_rows
from caft_utils.text_files import read_yaml

SOURCES_FILE = data_path("sources.yaml")
UNKNOWN = "not recorded"
COPIES = "CAFT_SHARED_DATA"
TABLES: dict[str, tuple[str, dict[str, Any]]] = {  # file suffix -> (pandas reader, keyword arguments)
    ".csv": ("read_csv", {"dtype": str, "keep_default_na": False}),
    ".parquet": ("read_parquet", {}),
    ".jsonl": ("read_json", {"lines": True}),
}


@functools.cache
def sources() -> dict[str, dict[str, Any]]:
    """Return the entries of data/sources.yaml by name. Raises ValueError if an entry lacks a field."""
    entries = mapping(str(SOURCES_FILE), read_yaml(SOURCES_FILE))
    for name, entry in entries.items():
        where = f"{SOURCES_FILE}, {name}"
        mapping(where, entry, needed=("dataset", "revision", "columns", "rows_sha256", "licence"))
        texts(f"{where}, columns", entry["columns"])
    return entries


def published_file(
    name: str,
    path: str | Path | None = None,
    *,
    source: Mapping[str, Any] | None = None,
    store: Store | None = None,
) -> Path:
    """Return the CSV file of a published set after checking its rows. Downloads it once if `path` is None.

    CAFT_SHARED_DATA may name a folder with the user's copies. A file in it or in a subfolder that has the
    recorded rows is used, whatever its name, and nothing is downloaded.

    A download is stored with `source.json`, which records the data set, commit, file, the file's sha256 and
    the licence. A warning states the licence as well.

    Args:
        name: an entry of data/sources.yaml ("verbs", "sentiment", "pronouns", "gender", ...).
        path: the user's own copy. If given, nothing is downloaded.
        source: replaces the entry of data/sources.yaml.

    Raises:
        KeyError: no such name. FileNotFoundError: no file at `path`.
        ValueError: the data set has no table or several, or its rows differ from the recorded ones.
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

    if copy := _copy(source):
        return copy

    def write(folder: Path) -> None:
        warnings.warn(f"{name} is {source['dataset']}. Licence: {source['licence']}", stacklevel=6)
        _download(source, folder)
        _check_rows(folder / "rows.csv", source)

    key = {field: source[field] for field in ("dataset", "revision", "columns", "rows_sha256")}
    return (store or default_store()).fetch("published", key, write) / "rows.csv"


def _copy(source: Mapping[str, Any]) -> Path | None:
    """Return the file in CAFT_SHARED_DATA that has the rows of a set, or None if no file has them."""
    folder, columns = os.environ.get(COPIES), source["columns"]
    for path in sorted(Path(folder).rglob("*.csv")) if folder else ():
        try:
            rows = [[row[column] for column in columns] for _, row in csv_rows(path, columns)]
        except ValueError:  # a table of another set
            continue
        if digest(rows) == source["rows_sha256"]:
            return path
    return None


def _download(source: Mapping[str, Any], folder: Path) -> None:
    import pandas
    from huggingface_hub import HfApi, hf_hub_download

    dataset, columns = source["dataset"], list(source["columns"])
    instead = (
        f"Save the rows as a CSV file with the columns {', '.join(columns)}, and pass its `path` or set "
        f"{COPIES} to its folder"
    )

    def request(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except Exception as error:
            if disk_problem(error, folder):
                raise  # the store's error says what to do
            # The remedy is the same for a failure of the network, of the hub, or offline mode.
            why = f"{type(error).__name__}: {error}"
            raise ConnectionError(f"{dataset} could not be downloaded ({why}). {instead}") from error

    with tempfile.TemporaryDirectory(dir=folder) as cache:
        info = request(HfApi().dataset_info, dataset, revision=source["revision"])
        tables = [s.rfilename for s in info.siblings or [] if Path(s.rfilename).suffix in TABLES]
        if len(tables) != 1:
            kinds = ", ".join(TABLES)
            raise ValueError(f"{dataset}: expected one table ({kinds}), found {tables or 'none'}. {instead}")
        about = {"dataset": dataset, "revision": info.sha, "file": tables[0], "licence": source["licence"]}
        where = {"repo_type": "dataset", "revision": info.sha, "cache_dir": cache}
        file = Path(request(hf_hub_download, dataset, tables[0], **where))
        about["sha256"] = sha256(file.read_bytes()).hexdigest()
        read, options = TABLES[file.suffix]
        try:
            rows = getattr(pandas, read)(file, **options)
        except Exception as error:  # each format has its own errors
            why = f"{tables[0]} is no table that can be read ({type(error).__name__}: {error})"
            raise ValueError(f"{dataset}: {why}. {instead}") from error
    if missing := set(columns) - set(rows.columns):
        raise ValueError(f"{dataset}, {about['file']}: no column {', '.join(sorted(missing))}. {instead}")
    rows[columns].to_csv(folder / "rows.csv", index=False)
    (folder / "source.json").write_text(json.dumps(about, indent=1))


def _check_rows(path: Path, source: Mapping[str, Any]) -> None:
    """Compare the rows with the recorded checksum, or warn that none is recorded."""
    columns = source["columns"]
    rows = [[row[column] for column in columns] for _, row in csv_rows(path, columns)]
    if source["rows_sha256"] == UNKNOWN:
        warnings.warn(f"{path}: no checksum of its rows is recorded, so they were not checked", stacklevel=3)
    elif digest(rows) != source["rows_sha256"]:
        raise ValueError(
            f"{path}: expected the recorded {source.get('rows')} rows, found "
            f"{len(rows)} that differ from them in number, text or order; read the file directly if it is "
            "meant to differ"
        )
