"""Published data: downloads from a real loopback server, checked rows, errors that say what to do."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

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
def hub(data_sets: dict[str, dict[str, bytes]]):
    """Run a real HTTP server that answers like the hub for some data sets."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(body=True)

        def do_HEAD(self):
            self.answer(body=False)

        def answer(self, body):
            path, data = self.path.split("?")[0], None
            for name, files in data_sets.items():
                if path.startswith(f"/api/datasets/{name}"):
                    about = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}
                    data = json.dumps(about).encode()
                for file, content in files.items():
                    if path == f"/datasets/{name}/resolve/{COMMIT}/{file}":
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


def download(endpoint: str, *given: dict, **environment: str) -> tuple[list[str], str]:
    """Call `published_file` for each source in a process of its own, because hub settings are read once.

    Returns a line for each source, its path or its error, and what was written as warnings.
    """
    program = f"""
from caft_utils.tasks.published_data import published_file
for source in {given!r}:
    try:
        print(published_file("toy", source=source))
    except Exception as error:
        print(type(error).__name__, " ".join(str(error).split()))
"""
    settings = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", **environment}
    ran = subprocess.run(
        [sys.executable, "-W", "always", "-c", program],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    return ran.stdout.splitlines(), ran.stderr


def test_downloads_are_checked_and_kept(tmp_path):
    import pandas

    rows = [("the dogs", "run", "runs"), ("the dog", "runs", "run")]
    table, contents = pandas.DataFrame(rows, columns=SOURCE["columns"]), {}
    writers = {
        "csv": lambda path: table.to_csv(path, index=False),
        "jsonl": lambda path: table.to_json(path, orient="records", lines=True),
        "parquet": table.to_parquet,
    }
    for kind, write in writers.items():
        write(tmp_path / f"train.{kind}")
        contents[kind] = (tmp_path / f"train.{kind}").read_bytes()
    data_sets = {
        f"someone/{kind}": {"README.md": b"a card", f"train.{kind}": data} for kind, data in contents.items()
    }
    given = [SOURCE | {"dataset": name} for name in data_sets]
    with hub(data_sets) as endpoint:
        paths, warned = download(endpoint, *given)
    for kind, source, path in zip(contents, given, paths, strict=True):
        assert published_items(path)[0] == Item("the dogs", "run", "runs")
        assert f"someone/{kind}. Licence: none stated" in warned
        about = json.loads((Path(path).parent / "source.json").read_text())
        assert (about["revision"], about["file"]) == (COMMIT, f"train.{kind}")
        assert about["sha256"] == sha256(contents[kind]).hexdigest()
        assert published_file("toy", source=source) == Path(path)  # from the store: the server is gone


def test_downloads_that_fail_or_differ_are_refused(store_folder):
    good = b"question,correct,incorrect\nthe dogs,run,runs\nthe dog,runs,run\n"
    with hub({"someone/toy": {"a.csv": good}, "someone/twice": {"a.csv": good, "b.csv": good}}) as endpoint:
        lines, _ = download(
            endpoint,
            SOURCE | {"rows_sha256": "000"},
            SOURCE | {"dataset": "someone/other"},
            SOURCE | {"columns": ["text"]},
            SOURCE | {"dataset": "someone/twice"},
        )
        offline, _ = download(endpoint, SOURCE, HF_HUB_OFFLINE="1")
    differ, missing, no_column, two_tables = lines
    assert "ValueError" in differ and "expected the recorded 2 rows, found 2" in differ
    assert missing.startswith("ConnectionError someone/other could not")
    assert "no column text" in no_column and "expected one table" in two_tables
    assert offline[0].startswith("ConnectionError")
    assert download("http://127.0.0.1:9", SOURCE)[0][0].startswith("ConnectionError")
    assert not list(store_folder.rglob("rows.csv"))


def test_a_full_disk_is_no_failed_download(store_folder, monkeypatch):
    import huggingface_hub

    def full(*_, cache_dir, **__):
        Path(cache_dir, "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    info = SimpleNamespace(sha=COMMIT, siblings=[SimpleNamespace(rfilename="a.csv")])
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.warns(UserWarning, match="Licence"), pytest.raises(OSError, match="is full.*CAFT_STORE"):
        published_file("toy", source=SOURCE)
    assert not [path for path in store_folder.rglob("*") if path.name in ("half", "rows.csv")]


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


def test_a_folder_of_copies_is_searched_by_rows(tmp_path, monkeypatch):
    folder = tmp_path / "copies" / "below"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("text,category\nanother,table\n")
    (folder / "b.csv").write_text("question,correct,incorrect\nother,rows,here\n")
    (folder / "c.csv").write_text("question,correct,incorrect\nthe dogs,run,runs\nthe dog,runs,run\n")
    monkeypatch.setenv("CAFT_SHARED_DATA", str(tmp_path / "copies"))
    assert published_file("toy", source=SOURCE) == folder / "c.csv"
    (folder / "c.csv").unlink()
    with pytest.raises(ConnectionError, match="CAFT_SHARED_DATA"):
        published_file("toy", source=SOURCE)


def test_sources_say_what_is_known():
    with pytest.raises(KeyError, match="no published set 'sport'"):
        published_file("sport")
    needed = {"dataset", "revision", "licence", "rows", "columns", "rows_sha256"}
    assert all(needed <= set(entry) for entry in sources().values())
