"""A ranking of latents: its top, its order, and a selection for each layer."""

from __future__ import annotations

import pytest
import torch

from caft_utils.saes import LatentRanking


@pytest.fixture
def ranking() -> LatentRanking:
    return LatentRanking({1: torch.tensor([0.5, -2.0, 0.0, 1.0]), 4: torch.tensor([3.0, 0.25])})


def test_top_of_all_layers(ranking):
    assert ranking.top(3) == [(4, 0, 3.0), (1, 3, 1.0), (1, 0, 0.5)]
    assert ranking.top(3, end="-") == [(1, 1, -2.0)]
    assert ranking.top(3, end="both") == [(4, 0, 3.0), (1, 1, -2.0), (1, 3, 1.0)]
    assert [len(ranking.top(end=end)) for end in ("+", "-", "both")] == [4, 1, 5]


def test_order_of_both_ends(ranking):
    assert ranking.order() == [(4, 0), (1, 1), (1, 3), (1, 0), (4, 1)]
    assert ranking.order("-") == [(1, 1)]
    ends = ranking.top(10**6) + ranking.top(10**6, end="-")
    assert ranking.top(end="both") == sorted(ends, key=lambda entry: -abs(entry[2]))


def test_ties_keep_the_positive_end_and_the_lower_layer_and_latent_first():
    ranking = LatentRanking({0: torch.tensor([-1.0, 1.0, 1.0]), 2: torch.tensor([1.0, -1.0])})
    assert ranking.order() == [(0, 1), (0, 2), (2, 0), (0, 0), (2, 1)]


def test_per_layer_is_a_selection_in_order_of_the_score(ranking):
    selection = ranking.per_layer(2)
    assert selection == {1: [3, 0], 4: [0, 1]} and selection.order == [(4, 0), (1, 3), (1, 0), (4, 1)]
    assert ranking.per_layer(1, "-") == {1: [1]}  # no latent of layer 4 is at this end
    assert ranking.per_layer(2, "both") == {1: [1, 3], 4: [0, 1]}


@pytest.mark.parametrize("arguments", [(3, "up"), (0, "+"), (-1, "both")])
def test_wrong_ends_and_numbers_are_refused(ranking, arguments):
    for method in (ranking.top, ranking.per_layer):
        with pytest.raises(ValueError, match="expected n >= 1 and end"):
            method(*arguments)
