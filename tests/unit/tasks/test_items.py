"""Item files: their two layouts, errors that name file and row, splits of the paper's sizes."""

from __future__ import annotations

import random

import pytest

from caft_utils.tasks.items import Item, draw_evenly, published_items, split_items, split_sizes

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
    assert split_sizes(1000) == {"train": 700, "valid": 150, "test": 150}  # pairs with sports
    assert split_sizes(1167) == {"train": 816, "valid": 175, "test": 176}  # sentiment with verbs or pronouns
    assert split_sizes(2000) == {"train": 1400, "valid": 300, "test": 300}  # pronouns with verbs


def test_split_cuts_to_the_shorter_and_is_disjoint():
    long, short = ([Item(f"{name} {i}", "x", "y") for i in range(n)] for name, n in (("l", 50), ("s", 30)))
    first, second = split_items(long, short)
    for parts, whole in ((first, long), (second, short)):
        assert {name: len(part) for name, part in parts.items()} == split_sizes(30)
        drawn = [item for part in parts.values() for item in part]
        assert len(set(drawn)) == 30 and set(drawn) <= set(whole)
    assert split_items(long, short) == (first, second) and split_items(long, short, seed=1)[0] != first
    assert sum(map(len, split_items(long, short, max_items=20)[0].values())) == 20
    with pytest.raises(ValueError, match="7 items or more"):
        split_items(long, short[:3])


def test_spread_uses_all_equally_often():
    drawn = draw_evenly("abc", 8, random.Random(0))
    assert len(drawn) == 8 and sorted(drawn.count(letter) for letter in "abc") == [2, 3, 3]
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_evenly([], 1, random.Random(0))


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
