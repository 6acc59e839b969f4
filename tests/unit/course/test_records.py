"""Records: rows of models measured again replace the old ones, and a record is a table."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from caft_utils.course.records import load_record, rate_columns, record_frame, row, save_record


def save(folder, model, value):
    return save_record("demo", [{"model": model, "condition": "x", "value": value}], seconds=2, folder=folder)


def test_a_record_replaces_the_rows_of_the_models_measured_again(tmp_path):
    save(tmp_path, "a", 1), save(tmp_path, "b", 2), save(tmp_path, "a", 3)
    record = load_record("demo", tmp_path)
    assert (row(record, "a", "x")["value"], row(record, "b", "x")["value"]) == (3, 2)
    assert set(row(record, "a", "x")["made"]) == {"code", "date", "seconds", "packages", "machine"}


def test_a_missing_row_or_record_is_named(tmp_path):
    save(tmp_path, "a", 1)
    with pytest.raises(KeyError, match="'x'"):
        row(load_record("demo", tmp_path), "a", "y")
    with pytest.raises(FileNotFoundError, match="CLAIM=other"):
        load_record("other", tmp_path)


def test_two_rows_of_one_condition_are_refused():
    rows = [{"model": "a", "condition": "x"}] * 2
    with pytest.raises(KeyError, match="more than one"):
        row({"rows": rows}, "a", "x")


def test_a_record_that_cannot_be_written_stays_as_it_was(tmp_path):
    path = save(tmp_path, "a", 1)
    with pytest.raises(TypeError):
        save(tmp_path, "a", object())
    assert json.loads(path.read_text())["rows"][0]["value"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["demo.json"]


def test_two_processes_keep_each_others_rows(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom caft_utils.course.records import save_record\n"
        "for i in range(6):\n"
        " rows = [{'model': f'{sys.argv[2]}{i}', 'condition': 'x'}]\n"
        " save_record('demo', rows, seconds=1, folder=Path(sys.argv[1]))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, tmp_path, who]) for who in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    models = {each["model"] for each in load_record("demo", tmp_path)["rows"]}
    assert models == {f"{who}{i}" for who in "ab" for i in range(6)}
    assert [path.name for path in tmp_path.iterdir()] == ["demo.json"]


@pytest.mark.parametrize("content", ["", "null", "[]", '{"rows": 5}', '{"rows": [{}]}', "[" * 99999, "{"])
def test_a_damaged_record_is_named_and_kept_beside_the_new_one(tmp_path, content):
    (tmp_path / "demo.json").write_text(content)
    with pytest.raises(ValueError, match="demo.json.*make claims"):
        load_record("demo", tmp_path)
    with pytest.warns(UserWarning, match="demo.json.damaged"):
        save(tmp_path, "a", 1)
    assert row(load_record("demo", tmp_path), "a", "x")["value"] == 1
    assert (tmp_path / "demo.json.damaged").read_text() == content


def test_a_record_is_a_table(tmp_path):
    save(tmp_path, "a", 1), save(tmp_path, "b", 2)
    frame = record_frame("demo", tmp_path).set_index("model")
    assert frame.loc["a", "value"] == 1 and set(frame.columns) == {"condition", "value", "made"}


@pytest.mark.parametrize(
    "text, problem",
    [
        ("[]", "fields"),
        ("{}", "missing fields rows"),
        ('{"rows": 5}', "rows must be a list"),
        ('{"rows": [{"model": "m", "condition": "c", "\\ud800": 1}]}', "row 0: has a lone surrogate"),
        ('{"rows": [{"model": "a"}]}', "row 0: missing fields condition"),
        ('{"rows": [', "not JSON"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path, text, problem):
    (tmp_path / "demo.json").write_text(text)
    with pytest.raises(ValueError, match=f"demo.json.*{problem}"):
        load_record("demo", tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, [1.0, math.nan], {"low": -math.inf}])
def test_a_number_that_is_none_is_refused_and_the_record_stays(tmp_path, value):
    save(tmp_path, "a", 1)
    with pytest.raises(ValueError, match="'a', 'x'.*value"):
        save(tmp_path, "a", value)
    assert row(load_record("demo", tmp_path), "a", "x")["value"] == 1


def test_rates_of_a_row_become_columns_of_a_figure():
    columns = rate_columns({"harm": [0.5, 0.25, 0.75], "condition": "plain"}, bad="harm")
    assert columns == {"bad": 0.5, "bad_low": 0.25, "bad_high": 0.75}
    with pytest.raises(ValueError, match="zip"):
        rate_columns({"harm": [0.5, 0.25]}, bad="harm")
