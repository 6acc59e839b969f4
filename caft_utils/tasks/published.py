"""Published task data: where it is, and whether a copy of it is the one that this project was tested with.

data/sources.yaml holds for each set its data set on the hub, revision, file and checksum as far as they are
known, what its licence says, and a checksum of its ROWS, which does not depend on the kind of file. Nothing
of it is shipped: it is downloaded when a user asks for it, or read from the user's own copy.
"""

from __future__ import annotations

import csv
import functools
import shutil
import warnings
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from caft_utils.store import Store, default_store, digest

FILE = Path(__file__).parents[2] / "data" / "sources.yaml"
UNKNOWN = "not recorded"
HUB = "https://huggingface.co/datasets/{dataset}/resolve/{revision}/{file}"


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

    Args:
        name: of data/sources.yaml ("verbs", "sentiment", "pronouns", "gender", ...).
        path: a copy that is there already; nothing is downloaded then.
        source: what is known about the set, instead of the file's entry; `url` counts before dataset,
            revision and file.

    Raises:
        KeyError: no such name. FileNotFoundError: no file at `path`.
        ValueError: nothing says where the file is, or its checksum or rows are others than recorded.
        ConnectionError: the download failed.
    """
    if source is None:
        if name not in sources():
            raise KeyError(f"no published set {name!r}; there are {', '.join(sources())}")
        source = sources()[name]
    if path is not None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {path}; expected the CSV file of {source.get('dataset', name)}")
        _check_rows(Path(path), source)
        return Path(path)
    url = source.get("url") or _hub_url(name, source)
    if not (checksum := _known(source, "sha256")):
        raise ValueError(f"{name}: no checksum of the file is recorded, so it is not downloaded; pass `path`")

    def write(folder: Path) -> None:
        file = folder / "rows.csv"
        try:
            with urlopen(url, timeout=60) as response, file.open("wb") as out:
                shutil.copyfileobj(response, out)
        except (URLError, OSError) as error:
            raise ConnectionError(f"{url} could not be read ({error}); pass the path of a copy") from error
        with file.open("rb") as read:
            if (found := file_digest(read, "sha256").hexdigest()) != checksum:
                raise ValueError(f"{url}: sha256 is {found}, recorded is {checksum}; nothing was kept")
        _check_rows(file, source)

    key = {"url": url, "sha256": checksum}
    return (store or default_store()).fetch("published", key, write) / "rows.csv"


def _known(source: Mapping[str, Any], field: str) -> str | None:
    value = source.get(field)
    return None if value in (None, UNKNOWN) else str(value)


def _hub_url(name: str, source: Mapping[str, Any]) -> str:
    values = {field: _known(source, field) for field in ("dataset", "revision", "file")}
    if missing := [field for field, value in values.items() if value is None]:
        raise ValueError(
            f"{name}: {' and '.join(missing)} of its source are not recorded, so it cannot be downloaded "
            f"from here. Save data set {values['dataset'] or '(unknown)'} as a CSV file with the columns "
            f"{', '.join(source.get('columns', []))} and pass its `path`"
        )
    return HUB.format(**values)


def _check_rows(path: Path, source: Mapping[str, Any]) -> None:
    """Compare the rows with the recorded number and checksum; where none is recorded, say so."""
    columns = source["columns"]
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if missing := set(columns) - set(reader.fieldnames or []):
            raise ValueError(f"{path}, header: no column {', '.join(sorted(missing))}")
        rows = [[row[column] for column in columns] for row in reader]
    if (expected := _known(source, "rows_sha256")) is None:
        warnings.warn(
            f"{path}: no checksum of its rows is recorded; they are taken as they are", stacklevel=3
        )
    elif digest(rows) != expected:
        raise ValueError(
            f"{path}: these are not the recorded rows: expected {source.get('rows')}, found {len(rows)}, or "
            "as many with other texts or in another order; read the file directly if it is meant to differ"
        )
