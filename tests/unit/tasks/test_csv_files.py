"""Tables as Excel and people write them."""

from __future__ import annotations

import csv

import pytest

from caft_utils.tasks.csv_files import csv_rows
from caft_utils.tasks.items import Item, published_items

ITEM = Item("the dogs, two", "run", "runs")


def written(tmp_path, content, encoding="utf-8"):
    path = tmp_path / "rows.csv"
    path.write_bytes(content.encode(encoding))
    return path


@pytest.mark.parametrize(
    "content, encoding",
    [
        ('question,correct,incorrect\n"the dogs, two",run,runs\n', "utf-8-sig"),
        ("question;correct;incorrect\r\nthe dogs, two;run;runs\r\n", "utf-16"),
        ("sep=;\nquestion;correct;incorrect\nthe dogs, two;run;runs\n", "utf-8"),
        ("question\tcorrect\tincorrect\nthe dogs, two\trun\truns", "utf-8"),
        ('Question, CORRECT ,incorrect\r"the dogs, two",run,runs\r', "utf-8"),
        ('\n\nquestion,correct,incorrect,note\n\n"the dogs, two",run,runs,"a\nb"\n\n', "utf-8"),
        ('question,A,B,Answer\n"the dogs, two",runs,run,B\n', "utf-8"),
    ],
)
def test_one_item_in_many_spellings(tmp_path, content, encoding):
    assert published_items(written(tmp_path, content, encoding)) == [ITEM]


def test_long_fields_are_read_and_the_limit_of_the_process_stays(tmp_path):
    before, text = csv.field_size_limit(), "a" * 200_000
    ((where, row),) = csv_rows(written(tmp_path, f"text,category\n{text},x\n"), ("text", "category"))
    assert row["text"] == text and where.endswith("row 1") and csv.field_size_limit() == before


@pytest.mark.parametrize(
    "content, problem",
    [
        ("", "no column text, category"),
        ("text,category\n", "no row found"),
        ("text\na\n", "header: no column category"),
        ("text,text,category\na,b,c\n", "column text is given twice"),
        ("text,category\na,b\nc,d,e\n", "row 2: more values"),
        ('text,category\na,b\n"c,d\ne,f\n', "row 2: a quote .* never closed"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(tmp_path, content, problem):
    with pytest.raises(ValueError, match=rf"rows\.csv.*{problem}"):
        list(csv_rows(written(tmp_path, content), ("text", "category")))
