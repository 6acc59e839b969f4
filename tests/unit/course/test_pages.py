"""Tables made of records, and the pages that show them."""

from __future__ import annotations

import pytest
from helpers.paths import REPOSITORY

from caft_utils.course.engine_tables import architectures_table, engines_table, judge_table
from caft_utils.course.page_pictures import tradeoff_figure
from caft_utils.course.pages import TABLES, frame_markdown, write_tables
from caft_utils.course.records import load_record


@pytest.mark.parametrize("page, name, table, claim", TABLES, ids=[name for _, name, *_ in TABLES])
def test_a_page_shows_what_was_recorded(page, name, table, claim):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    shown = text.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    assert frame_markdown(table(load_record(claim))) == shown.strip()


def test_tables_are_written_between_their_markers(tmp_path):
    for page, name, *_ in TABLES:
        path = tmp_path / page
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if path.exists() else "above\n"
        path.write_text(f"{before}<!-- {name} -->\nold\n<!-- /{name} -->\n")
    write_tables(tmp_path)
    for page, *_ in TABLES:
        text = (tmp_path / page).read_text()
        assert (
            text.startswith("above\n") and "old" not in text and "| measured here" in text or "plain" in text
        )


def test_rates_in_tables_have_one_format():
    for *_, table, claim in TABLES:
        if table in (architectures_table, engines_table, judge_table):  # times, differences and AUROCs
            continue
        cells = [cell for column in table(load_record(claim)).to_numpy().T for cell in column]
        assert any("% [" in cell for cell in cells), claim


def test_the_picture_has_a_point_for_each_condition():
    record = load_record("emergent")
    figure = tradeoff_figure(record, "classroom-qwen")
    plain = next(trace for trace in figure.data if trace.name and trace.name.startswith("plain"))
    row = next(r for r in record["rows"] if (r["model"], r["condition"]) == ("classroom-qwen", "plain"))
    assert plain.x[0] == pytest.approx(100 * row["task"][0])
    assert plain.y[0] == pytest.approx(100 * row["misaligned"][0])
