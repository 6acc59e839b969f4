"""The data card shows what recipe.json records."""

from __future__ import annotations

import pytest
from helpers.paths import REPOSITORY

from caft_utils.classroom.checkpoints import SHIPPED
from caft_utils.classroom.data_card import measured_tables, put_table, read_record

FOLDER = REPOSITORY / "data" / "classroom"


def test_a_table_is_replaced_between_its_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- measured -->\nold\n<!-- /measured -->\nb\n<!-- cues -->\nc\n<!-- /cues -->\n")
    put_table(page, "new")
    assert page.read_text() == (
        "a\n<!-- measured -->\nnew\n<!-- /measured -->\nb\n<!-- cues -->\nc\n<!-- /cues -->\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


@pytest.fixture(scope="module")
def records():
    return {name: read_record(FOLDER / name) for name in SHIPPED}


@pytest.mark.parametrize("marker", ["measured", "cues", "gender"])
def test_the_data_card_shows_the_records(records, marker):
    table = measured_tables(records)[marker]
    assert f"<!-- {marker} -->\n{table}\n<!-- /{marker} -->" in (FOLDER / "README.md").read_text()


def test_a_missed_gate_is_marked(records):
    rows = [line for line in measured_tables(records)["measured"].split("\n") if "missed" in line]
    failed = [name for record in records.values() for name in record["acceptance"]["failed"]]
    assert len(rows) == len(failed) and all(name in row for name, row in zip(failed, rows, strict=True))
