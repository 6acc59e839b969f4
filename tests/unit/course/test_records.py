"""Records and the tables made of them: whole, and in step with the pages that show them."""

from __future__ import annotations

import pytest
from helpers.paths import REPOSITORY

from caft_utils.classroom.data_card import put_table
from caft_utils.course.pages import cues_table, reading_table, readme_table, twins_table
from caft_utils.course.records import load_record, row, save_record

ROOT = REPOSITORY


def test_a_record_replaces_the_rows_of_the_models_measured_anew(tmp_path):
    save_record("demo", [{"model": "a", "condition": "x", "value": 1}], seconds=2, folder=tmp_path)
    save_record("demo", [{"model": "b", "condition": "x", "value": 2}], seconds=2, folder=tmp_path)
    save_record("demo", [{"model": "a", "condition": "x", "value": 3}], seconds=2, folder=tmp_path)
    record = load_record("demo", tmp_path)
    assert (row(record, "a", "x")["value"], row(record, "b", "x")["value"]) == (3, 2)
    assert set(row(record, "a", "x")["made"]) >= {"code", "date", "seconds", "packages", "machine"}
    with pytest.raises(KeyError, match="no row"):
        row(record, "a", "y")
    with pytest.raises(FileNotFoundError, match="make claims CLAIM=other"):
        load_record("other", tmp_path)


def test_a_table_goes_between_the_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- measured -->\nold\n<!-- /measured -->\nb\n")
    put_table(page, "new")
    assert page.read_text() == "a\n<!-- measured -->\nnew\n<!-- /measured -->\nb\n"


@pytest.mark.parametrize(
    "page, table, claim",
    [
        ("README.md", readme_table, "emergent"),
        ("README.md", reading_table, "reading"),
        ("README.md", cues_table, "cues"),
        ("data/classroom/README.md", twins_table, "twins"),
    ],
)
def test_a_page_shows_what_was_recorded(page, table, claim):
    assert table(load_record(claim)) in (ROOT / page).read_text()
