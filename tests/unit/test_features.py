"""Selection: which features, in which order, under which names."""

from __future__ import annotations

import json

import pytest

from caft_utils.features import Selection

PAIRS = [(2, 7), (0, 3), (2, 1), (-1, 0)]
NAMES = {(2, 1): "harm", (-1, 0): "weather"}


@pytest.fixture
def selection() -> Selection:
    return Selection(PAIRS, NAMES)


def test_pairs_keep_their_order_and_group_by_layer(selection):
    assert selection.order == PAIRS and selection.names == NAMES
    assert list(selection) == [-1, 0, 2] and selection[2] == [7, 1] and len(selection) == 3
    assert selection == {-1: [0], 0: [3], 2: [7, 1]} == dict(selection)
    assert selection != {-1: [0], 0: [3], 2: [1, 7]}
    with pytest.raises(KeyError):
        selection[1]


def test_a_mapping_is_ordered_by_layer_and_may_have_empty_layers():
    selection = Selection({2: [7, 1], 0: (3,), 1: []})
    assert selection.order == [(0, 3), (2, 7), (2, 1)] and list(selection) == [0, 2]
    assert selection.names == {} and 1 not in selection


def test_a_selection_is_copied_with_order_and_names(selection):
    assert Selection(selection).order == PAIRS and Selection(selection).names == NAMES
    assert Selection(selection, {(0, 3): "other"}).names == {(0, 3): "other"}
    assert Selection(selection, {}).names == {}


def test_nothing_selected_is_false():
    for empty in (Selection(), Selection({}), Selection([]), Selection({1: []})):
        assert not empty and empty == {} and empty.order == []


def test_what_it_returns_does_not_change_it(selection):
    selection[2].append(99)
    assert selection[2] == [7, 1]


def test_indices_become_plain_integers():
    import numpy as np

    selection = Selection({np.int64(1): np.array([4, 2])}, {(np.int64(1), np.int64(4)): "harm"})
    assert all(type(number) is int for pair in selection.order for number in pair)
    json.dumps(selection.to_json())


def test_first_and_at_keep_order_and_names(selection):
    assert selection.first(3).order == PAIRS[:3] and selection.first(3).names == {(2, 1): "harm"}
    assert selection.first(0) == {} and selection.first(99).order == PAIRS
    assert selection.at([2, -1]).order == [(2, 7), (2, 1), (-1, 0)] and selection.at([2, -1]).names == NAMES
    assert selection.at([5]) == {}
    assert selection.at([2]).first(1) == {2: [7]}


def test_json_and_back(selection):
    again = Selection.from_json(json.loads(json.dumps(selection.to_json())))
    assert again.order == selection.order and again.names == selection.names


@pytest.mark.parametrize(
    "value", [{}, {"order": [[1, 2]]}, {"order": [1, 2], "names": []}, {"order": [[1]], "names": []}, None]
)
def test_json_that_is_no_selection_is_refused(value):
    with pytest.raises(ValueError, match="not a selection"):
        Selection.from_json(value)


@pytest.mark.parametrize("selection", [{1: [2, 2]}, [(1, 2), (0, 1), (1, 2)]])
def test_duplicates_are_refused(selection):
    with pytest.raises(ValueError, match=r"twice: \[\(1, 2\)\]"):
        Selection(selection)


def test_names_of_other_features_are_refused(selection):
    with pytest.raises(ValueError, match=r"not selected: \[\(0, 4\)\]"):
        Selection(selection, {(0, 4): "harm"})


@pytest.mark.parametrize("selection", [{1: 0}, [0], 3, [(1, 2, 3)]])
def test_what_is_no_selection_is_refused(selection):
    with pytest.raises(ValueError, match=r"must be \{layer: \[index, ...\]\} or a list of pairs"):
        Selection(selection)
