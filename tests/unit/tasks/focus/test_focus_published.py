"""Reading tables of the published form: columns, labels stored as numbers, and the labels of values."""

from __future__ import annotations

import json

import pytest

from caft_utils.tasks.focus import agreement, published_examples

ROWS = [
    {"premise": "a b", "hypothesis": "c", "label": 0, "genre": "fiction"},
    {"premise": "d", "hypothesis": "e", "label": 1, "genre": "fiction"},
    {"premise": "f", "hypothesis": "g", "label": 0, "genre": "fiction"},
    {"premise": "h", "hypothesis": "i", "label": 2, "genre": "travel"},
]
OPTIONS = {
    "columns": ["premise", "hypothesis"],
    "label": "label",
    "value": "genre",
    "core": "the relation",
    "spurious": "the genre",
    "label_names": {0: "yes", 1: "perhaps", 2: "no"},
}


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def table(request, tmp_path):
    import pandas

    path, frame = tmp_path / f"rows.{request.param}", pandas.DataFrame(ROWS)
    if request.param == "jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)))
    elif request.param == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


def test_rows_become_examples_with_the_most_frequent_label_of_each_value(table):
    examples = published_examples(table, **OPTIONS)
    assert [one.text for one in examples] == ["a b\nc", "d\ne", "f\ng", "h\ni"]
    assert [one.label for one in examples] == ["yes", "perhaps", "yes", "no"]
    assert [one.spurious_label for one in examples] == ["yes", "yes", "yes", "no"]
    assert examples[0].labels == ("no", "perhaps", "yes") and agreement(examples) == 0.75


def test_template_and_labels_of_values_can_be_given(table):
    labels = {"fiction": "perhaps", "travel": "no"}
    (first, *_) = published_examples(
        table, **OPTIONS, template="{hypothesis} after {premise}", labels_of_values=labels
    )
    assert first.text == "c after a b" and first.spurious_label == "perhaps"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": "topic"}, "no column topic"),
        ({"label_names": {0: "yes"}}, "row 2: the label 1 has no name"),
        ({"labels_of_values": {"fiction": "yes"}}, "no label is given for the values travel"),
    ],
)
def test_what_is_missing_is_named(table, change, message):
    with pytest.raises(ValueError, match=message):
        published_examples(table, **(OPTIONS | change))


def test_a_value_with_two_equally_frequent_labels_needs_a_map(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS[:2]))
    with pytest.raises(ValueError, match="'fiction' has the labels"):
        published_examples(path, **OPTIONS)


def test_without_file_or_network_the_message_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="give its id"):
        published_examples(tmp_path / "none.csv", **OPTIONS)
    with pytest.raises(ConnectionError, match="give its path as `place`"):
        published_examples("someone/nothing", file="a.csv", **OPTIONS)
