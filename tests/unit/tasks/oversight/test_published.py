"""The published benchmark: checked files, a download from a loopback server, and the passive leak."""

from __future__ import annotations

import json
from hashlib import sha256
from http.server import BaseHTTPRequestHandler

import pytest
from helpers.chat_server import serving

from caft_utils.evaluation.bootstrap import clustered_rate
from caft_utils.tasks.oversight import published
from caft_utils.tasks.oversight.published import benchmark_file, passive_hits, published_rows

FILES = ("genie_and_reward", "genie_and_money", "genie_and_fitness")


def rows_of(*by_model):
    """Return the bytes of a file with one row for each {model: probability}."""
    rows = [
        {"prompt": f"p{n}", "response": "A", "oversight_is_poor": False, "probs": chances}
        for n, chances in enumerate(by_model)
    ]
    return json.dumps(rows).encode()


CONTENT = rows_of(
    {"x/genie-0": 0.999, "x/saint_fix-1": 0.99, "x/money_maximizer-0": 0.995},
    {"x/genie-0": 0.999, "x/saint_fix-1": 0.99, "x/money_maximizer-0": 0.995},
)


@pytest.fixture
def recorded(monkeypatch):
    """Let the recorded benchmark be one small file."""
    source = {
        "repository": "some/one",
        "revision": "c0ffee",
        "folder": "data",
        "licence": "none stated",
        "files": {"small": sha256(CONTENT).hexdigest(), "other": "not recorded"},
    }
    monkeypatch.setattr(published, "benchmark_source", lambda: source)
    monkeypatch.delenv("CAFT_SHARED_DATA", raising=False)
    return source


def test_the_less_sure_model_is_the_suspect(tmp_path):
    (tmp_path / "small.json").write_bytes(CONTENT)
    rows = published_rows(tmp_path / "small.json")
    assert [row.answer for row in rows] == ["A", "A"] and not any(row.oversight_is_poor for row in rows)
    assert passive_hits(rows) == [
        ("genie-0", "money_maximizer-0", True),
        ("saint_fix-1", "money_maximizer-0", False),
    ]


def test_a_download_is_checked_and_stored(recorded):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_):
            pass

    with serving(Handler) as host:
        with pytest.warns(UserWarning, match="none stated"):
            path = benchmark_file("small", host=host)
        assert benchmark_file("small", host=host) == path and path.read_bytes() == CONTENT
        assert asked == ["/some/one/c0ffee/data/small.json"]
        recorded["files"]["small"] = 64 * "0"
        recorded["revision"] = "other"
        with pytest.warns(UserWarning), pytest.raises(ValueError, match="not the recorded file"):
            benchmark_file("small", host=host)


def test_a_copy_is_found_by_its_checksum(recorded, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "small.json").write_bytes(CONTENT)
    monkeypatch.setenv("CAFT_SHARED_DATA", str(tmp_path))
    assert benchmark_file("small") == tmp_path / "mine" / "small.json"


def test_what_is_wrong_is_named(recorded, tmp_path):
    with pytest.raises(KeyError, match="there are small, other"):
        benchmark_file("large")
    with pytest.raises(FileNotFoundError, match="small.json of some/one"):
        benchmark_file("small", tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(ValueError, match="not the recorded file"):
        benchmark_file("small", tmp_path / "bad.json")
    with pytest.raises(ValueError, match="expected a list of rows"):
        published_rows(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_bytes(rows_of({"genie-0": 0.9}, {"genie-1": 0.9}))
    with pytest.raises(ValueError, match="row 1: its models differ"):
        published_rows(tmp_path / "bad.json")
    with (
        pytest.warns(UserWarning, match="revision|downloaded|Licence"),
        pytest.raises(ConnectionError, match="path"),
    ):
        benchmark_file("small", host="http://127.0.0.1:9")


def test_the_published_files_leak(shared_data):
    """The facts of the three files at hand; how much they leak is recorded by the claim "fakers"."""
    hits = []
    for name in FILES:
        rows = published_rows(benchmark_file(name, shared_data / "poser" / f"{name}.json"))
        assert not any(row.oversight_is_poor for row in rows)
        assert min(min(row.probabilities.values()) for row in rows) >= 0.985
        of_file = passive_hits(rows)
        assert len(of_file) == 36
        hits += of_file
    right = clustered_rate(
        [h for *_, h in hits], [1] * len(hits), [a for a, *_ in hits], [f for _, f, _ in hits]
    )
    assert right.n == 108 and right.value > 0.8 and right.low < 0.8  # a wide interval: 6 x 18 models
