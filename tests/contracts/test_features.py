"""The contract of every kind of features (`caft_utils.features.Features`). Add a kind to KINDS."""

from __future__ import annotations

import pytest
import torch
from helpers.saes import random_sae

from caft_utils.directions import Directions
from caft_utils.features import Features, Selection, sides
from caft_utils.interventions import ablate
from caft_utils.saes import Latents, SAEs

WIDTH = 64


def directions():
    torch.manual_seed(0)
    return Directions({-1: torch.randn(3, WIDTH), 2: torch.randn(5, WIDTH)})


def all_latents():
    return Latents(SAEs({-1: random_sae(8), 2: random_sae(seed=1)}))


def selected_latents():
    return Latents(SAEs({-1: random_sae(8), 2: random_sae(seed=1)}), {-1: [5, 2], 2: [30, 4, 17]})


KINDS = {"directions": directions, "all latents": all_latents, "selected latents": selected_latents}


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(params=KINDS)
def features(request) -> Features:
    return KINDS[request.param]()


def test_what_describes_them(features):
    assert isinstance(features, Features)
    assert features.kind and isinstance(features.two_sided, bool) and features.width == WIDTH
    assert sides(features) == (("+", "-") if features.two_sided else ("+",))
    assert features.layers == [-1, 2]
    for layer in features.layers:
        indices = features.indices(layer)
        assert indices and len(set(indices)) == len(indices) and all(type(i) is int for i in indices)
    assert features.kind not in ("", None) and str(len(features.indices(2))) in repr(features)


def test_values_have_one_column_for_each_index_and_one_row_for_each_state(features):
    h = torch.randn(9, WIDTH)
    for layer in features.layers:
        values = features.values(layer, h)
        assert values.shape == (9, len(features.indices(layer))) and not values.requires_grad
        torch.testing.assert_close(torch.cat([features.values(layer, one) for one in h.split(1)]), values)
        assert features.two_sided or (values >= 0).all()
        assert features.values(layer, h.bfloat16()).shape == values.shape


def test_vectors_have_length_one(features):
    for layer in features.layers:
        for i in features.indices(layer):
            vector = features.vector(layer, i)
            assert vector.shape == (WIDTH,) and vector.device.type == "cpu" and not vector.requires_grad
            assert vector.norm().item() == pytest.approx(1, abs=1e-5)


def test_projection_rows_reproduce_the_values(features):
    h = torch.randn(9, WIDTH)
    for layer in features.layers:
        if (rows := features.projection_rows(layer)) is not None:
            torch.testing.assert_close(h @ rows.T, features.values(layer, h))


def test_select_gives_orthonormal_directions_of_the_same_span(features):
    first, second = features.indices(2)[:2]
    chosen = features.select({2: [second, first]}, {(2, first): "harm"})
    assert isinstance(chosen, Directions) and chosen.layers == [2]
    torch.testing.assert_close(chosen[2] @ chosen[2].T, torch.eye(2), atol=1e-5, rtol=0)
    for i, index in enumerate((second, first)):
        vector, basis = features.vector(2, index), chosen[2][: i + 1]
        torch.testing.assert_close((vector @ basis.T) @ basis, vector, atol=1e-5, rtol=0)
        assert chosen[2][i] @ vector > 0
    assert chosen.about["selected"] == {"2": [second, first]}
    assert chosen.about["names"] == {"2": ["", "harm"]}


def test_select_takes_a_selection_with_its_names(features):
    index = features.indices(-1)[1]
    selection = Selection([(2, features.indices(2)[0]), (-1, index)], {(-1, index): "harm"})
    chosen, plain = features.select(selection), features.select(dict(selection))
    assert chosen.fingerprint == plain.fingerprint
    assert chosen.about["names"] == {"-1": ["harm"], "2": [""]} and "names" not in plain.about
    assert features.select(selection, {(-1, index): "other"}).about["names"]["-1"] == ["other"]
    assert chosen.select({2: [0]}).about["selected"] == {"2": selection[2]}


def test_what_is_selected_can_be_ablated(features, model):
    bad = features.select({2: features.indices(2)[:2]})
    with ablate(bad).on(model):
        assert model(torch.tensor([[5, 6, 7]])).logits.isfinite().all()


def test_what_does_not_exist_is_refused(features):
    index = features.indices(2)[0]
    missing = 1 + max(features.indices(2))
    for call in (
        lambda: features.indices(0),
        lambda: features.values(0, torch.randn(2, WIDTH)),
        lambda: features.vector(0, 0),
        lambda: features.select({0: [0]}),
    ):
        with pytest.raises(KeyError, match="layer 0"):
            call()
    for call in (
        lambda: features.vector(2, missing),
        lambda: features.vector(2, -1),
        lambda: features.select({2: [index, missing]}),
        lambda: features.select({2: [-1]}),
    ):
        with pytest.raises(IndexError, match="layer 2"):
            call()
    for empty in ({}, {2: []}):
        with pytest.raises(ValueError, match="selected"):
            features.select(empty)
    with pytest.raises(ValueError, match="twice"):
        features.select({2: [index, index]})
