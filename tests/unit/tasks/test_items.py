"""Item files: their two layouts, errors that name file and row, splits of the paper's sizes, sources."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from helpers.chat_server import serving

from caft_utils.store import digest
from caft_utils.tasks.items import Item, published_items, sizes, split_items, spread
from caft_utils.tasks.published_data import published_file, sources

GOOD = "question,correct,incorrect\nthe dogs,run,runs\nthe dog,runs,run\n"


def write(tmp_path, text):
    path = tmp_path / "items.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_both_layouts_of_a_file(tmp_path):
    items = [Item("the dogs", "run", "runs"), Item("the dog", "runs", "run")]
    assert published_items(write(tmp_path, GOOD)) == items
    letters = "question,A,B,answer\nthe dogs,run,runs,A\nthe dog,run,runs,B\n"
    assert published_items(write(tmp_path, letters)) == items


@pytest.mark.parametrize(
    "text, says",
    [
        ("text,correct,incorrect\na,b,c\n", "header: no column question"),
        ("question,correct\na,b\n", "row 1: no column 'incorrect'"),
        (GOOD + "the cat,runs\n", "row 3: no column 'incorrect'"),
        (GOOD + "the cat,runs,runs\n", "row 3: both options are 'runs'"),
        (GOOD + '"the ""cat""", runs,runs \n', "row 3: both options are 'runs'"),
        (GOOD + " ,runs,run\n", "row 3: 'question' is empty"),
        (GOOD + "the cat,,run\n", "row 3: 'correct' is empty"),
        (GOOD + "the cat,runs,run,now\n", "row 3: more values than the 3 columns"),
        ("question,A,B,answer\nthe dog,run,runs,C\n", "row 1: there is no option 'C'"),
        ("question,A,B,answer\nthe dog,run,,A\n", "row 1: 'B' is empty"),
        ("question,correct,incorrect\n", "no row"),
        ("", "header: no column question"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, text, says):
    path = write(tmp_path, text)
    with pytest.raises(ValueError) as error:
        published_items(path)
    assert str(path) in str(error.value) and says in str(error.value)


def test_sizes_are_those_of_the_paper():
    assert sizes(1000) == {"train": 700, "valid": 150, "test": 150}  # pairs with sports
    assert sizes(1167) == {"train": 816, "valid": 175, "test": 176}  # sentiment with verbs or pronouns
    assert sizes(2000) == {"train": 1400, "valid": 300, "test": 300}  # pronouns with verbs


def test_split_cuts_to_the_shorter_and_is_disjoint():
    long, short = ([Item(f"{name} {i}", "x", "y") for i in range(n)] for name, n in (("l", 50), ("s", 30)))
    first, second = split_items(long, short)
    for parts, whole in ((first, long), (second, short)):
        assert {name: len(part) for name, part in parts.items()} == sizes(30)
        drawn = [item for part in parts.values() for item in part]
        assert len(set(drawn)) == 30 and set(drawn) <= set(whole)
    assert split_items(long, short) == (first, second) and split_items(long, short, seed=1)[0] != first
    assert sum(map(len, split_items(long, short, most=20)[0].values())) == 20
    with pytest.raises(ValueError, match="7 items or more"):
        split_items(long, short[:3])


def test_spread_uses_all_equally_often():
    drawn = spread("abc", 8, random.Random(0))
    assert len(drawn) == 8 and sorted(drawn.count(letter) for letter in "abc") == [2, 3, 3]
    with pytest.raises(ValueError, match="nothing to draw"):
        spread([], 1, random.Random(0))


@pytest.mark.parametrize(
    "name, file", [("verbs", "sva"), ("sentiment", "sentiment"), ("pronouns", "gender_mc")]
)
def test_published_files_have_the_published_rows(shared_data, name, file):
    path = published_file(name, shared_data / "caft" / f"{file}.csv")
    assert len(published_items(path)) == sources()[name]["rows"]


def test_published_pairs_have_the_published_sizes(shared_data):
    verbs, sentiment, pronouns = (
        published_items(shared_data / "caft" / f"{name}.csv") for name in ("sva", "sentiment", "gender_mc")
    )
    for one, two, expected in [
        (verbs, sentiment, [816, 175, 176]),
        (pronouns, sentiment, [816, 175, 176]),
        (pronouns, verbs, [1400, 300, 300]),
    ]:
        assert [[len(part) for part in parts.values()] for parts in split_items(one, two)] == [expected] * 2


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
        assert "ValueError" in told and "not the recorded rows: expected 2, found 2" in told
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
    path = write(tmp_path, GOOD)
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
