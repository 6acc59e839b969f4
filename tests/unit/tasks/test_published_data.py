"""Published data: downloads from a real loopback server, checked rows, errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from helpers.chat_server import serving

from caft_utils.store import digest
from caft_utils.tasks.items import Item, published_items
from caft_utils.tasks.published_data import published_file, sources


@pytest.mark.parametrize(
    "name, file", [("verbs", "sva"), ("sentiment", "sentiment"), ("pronouns", "gender_mc")]
)
def test_published_files_have_the_published_rows(shared_data, name, file):
    path = published_file(name, shared_data / "caft" / f"{file}.csv")
    assert len(published_items(path)) == sources()[name]["rows"]


SOURCE = {
    "dataset": "someone/toy",
    "revision": "main",
    "columns": ["question", "correct", "incorrect"],
    "rows": 2,
    "rows_sha256": digest([["the dogs", "run", "runs"], ["the dog", "runs", "run"]]),
    "licence": "none stated",
}
COMMIT = "c0ffee" + 34 * "0"


@contextmanager
def hub(files: dict[str, bytes]):
    """A real HTTP server that answers as the hub does, about one data set."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(body=True)

        def do_HEAD(self):
            self.answer(body=False)

        def answer(self, body):
            path, data = self.path.split("?")[0], None
            if path.startswith("/api/datasets/someone/toy"):
                about = {"id": "someone/toy", "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}
                data = json.dumps(about).encode()
            for name, content in files.items():
                if path == f"/datasets/someone/toy/resolve/{COMMIT}/{name}":
                    data = content
            self.send_response(404 if data is None else 200)
            if data is not None:
                self.send_header("ETag", sha256(data).hexdigest())
                self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if body and data:
                self.wfile.write(data)

        def log_message(self, *args):
            pass

    with serving(Handler) as address:
        yield address


def download(endpoint: str, source: dict, **environment: str) -> str:
    """`published_file` in a process of its own, because hub settings are read once; the path or the error."""
    program = f"""
from caft_utils.tasks.published_data import published_file
try:
    print(published_file("toy", source={source!r}))
except Exception as error:
    print(type(error).__name__, error)
"""
    settings = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", **environment}
    ran = subprocess.run(
        [sys.executable, "-W", "always", "-c", program],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_download_is_checked_and_kept(kind, tmp_path):
    import pandas

    rows = [("the dogs", "run", "runs"), ("the dog", "runs", "run")]
    table, path = pandas.DataFrame(rows, columns=SOURCE["columns"]), tmp_path / f"train.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    with hub({"README.md": b"a card", path.name: path.read_bytes()}) as endpoint:
        told = download(endpoint, SOURCE)
    kept, *rest = told.splitlines()
    assert published_items(kept)[0] == Item("the dogs", "run", "runs")
    assert "toy is someone/toy. Licence: none stated" in "\n".join(rest)
    about = json.loads((Path(kept).parent / "source.json").read_text())
    assert (about["revision"], about["file"]) == (COMMIT, path.name)
    assert about["sha256"] == sha256(path.read_bytes()).hexdigest()
    assert published_file("toy", source=SOURCE) == Path(kept)  # from the store: there is no server any more


def test_download_that_fails_or_differs_is_refused(store_folder):
    good = b"question,correct,incorrect\nthe dogs,run,runs\nthe dog,runs,run\n"
    with hub({"a.csv": good}) as endpoint:
        told = download(endpoint, SOURCE | {"rows_sha256": "000"})
        assert "ValueError" in told and "expected the recorded 2 rows, found 2" in told
        assert "ConnectionError someone/other could not" in download(
            endpoint, SOURCE | {"dataset": "someone/other"}
        )
        assert "ConnectionError" in download(endpoint, SOURCE, HF_HUB_OFFLINE="1")
        assert "no column text" in download(endpoint, SOURCE | {"columns": ["text"]})
    with hub({"a.csv": good, "b.csv": good}) as endpoint:
        assert "expected one table" in download(endpoint, SOURCE)
    assert "ConnectionError" in download("http://127.0.0.1:9", SOURCE)
    assert not list(store_folder.rglob("rows.csv"))


def test_own_copy_is_checked_too(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("question,correct,incorrect\nthe dogs,run,runs\nthe dog,runs,run\n")
    assert published_file("toy", path, source=SOURCE) == path
    with pytest.warns(UserWarning, match="no checksum of its rows"):
        published_file("toy", path, source=SOURCE | {"rows_sha256": "not recorded"})
    with pytest.raises(ValueError, match="header: no column text"):
        published_file("toy", path, source=SOURCE | {"columns": ["text"]})
    with pytest.raises(FileNotFoundError, match="gone.csv"):
        published_file("verbs", tmp_path / "gone.csv")


def test_sources_say_what_is_known():
    with pytest.raises(KeyError, match="no published set 'sport'"):
        published_file("sport")
    needed = {"dataset", "revision", "licence", "rows", "columns", "rows_sha256"}
    assert all(needed <= set(entry) for entry in sources().values())
