"""Decisions: what a person selects is what is named and exported."""

from __future__ import annotations

import pytest
import torch
from helpers.explorers import component_explorer, latent_explorer

from caft_utils.directions import Directions
from caft_utils.features import Selection
from caft_utils.interpret.explorer import Decisions, Explorer


@pytest.fixture
def view():
    return component_explorer()


@pytest.fixture
def latents():
    return latent_explorer()


def test_selected_directions_and_names_are_the_selection(view):
    assert view.selection == {} and view.names == {} and view.progress == "0 of 4 read"
    view.select(2, 1)
    view.select(1, 1)
    view.tick(1, 0)  # the name in recorded notebooks
    view.select(1, 1, on=False)
    view.decide(2, 0, "discard")
    view.select(2, 0, on=False)  # was not selected: stays discarded
    view.name(2, 1, " harm ")
    assert view.selection == {1: [0], 2: [1]} and view.names == {(2, 1): "harm"}
    assert view.discarded == {2: [0]} and view.state(1, 1) == ""
    assert view.progress == "3 of 4 read \u00b7 2 to ablate, 1 discarded"
    again = Explorer(view.features, view.extremes, view.lens_words, decisions=view)
    assert again.html() == view.html() and again.selection.names == {(2, 1): "harm"}
    bad = view.features.select(view.selection, names=view.names)
    assert bad.about["selected"] == {"1": [0], "2": [1]} and bad.about["names"] == {"1": [""], "2": ["harm"]}
    view.name(2, 1, "")
    assert view.names == {}
    with pytest.raises(IndexError, match="layer 1 has the components 0 to 1, got 2"):
        view.select(1, 2)
    with pytest.raises(KeyError, match="no components at layer 3"):
        view.name(3, 0, "x")
    with pytest.raises(ValueError, match='"ablate", "discard" or "", got \'keep\''):
        view.decide(1, 0, "keep")


def test_what_is_exported_is_what_was_selected(view, latents, tmp_path):
    with pytest.raises(ValueError, match="nothing is selected yet: select a component"):
        view.export(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    view.select(2, 1)
    view.name(2, 1, "harm")
    view.name(1, 0, "not selected")
    loaded = Directions.load(view.export(tmp_path / "picked"))
    assert loaded.layers == [2] and torch.equal(loaded[2], view.features[2][1:])
    assert loaded.about["names"] == {"2": ["harm"]} and loaded.about["selected"] == {"2": [1]}
    latents.select(1, 1043)
    latents.select(1, 3)
    latents.name(1, 1043, "secrets")
    assert latents.selection == {1: [3, 1043]}
    loaded = Directions.load(latents.export(tmp_path / "latents"))
    span = torch.stack([latents.features.vector(1, i) for i in (3, 1043)])
    torch.testing.assert_close(span @ loaded[1].T @ loaded[1], span)
    assert loaded.about["selected"] == {"1": [3, 1043]} and loaded.about["names"] == {"1": ["", "secrets"]}
    with pytest.raises(IndexError, match="layer 1 has the latents 3, 17, 1043, got 0"):
        latents.select(1, 0)


def test_decisions_start_from_a_selection_and_its_names():
    found = Directions({1: torch.eye(8)[:3]})
    decisions = Decisions(found, Selection([(1, 2)], {(1, 2): "harm"}), discarded={1: [0, 2]})
    assert decisions.selection == {1: [2]} and decisions.selection.names == {(1, 2): "harm"}
    assert decisions.discarded == {1: [0]}, "a direction in both is selected"
    assert decisions.directions().about["names"] == {"1": ["harm"]}
    assert not Decisions(found).selection
    with pytest.raises(IndexError):
        Decisions(found, {1: [3]})


@pytest.mark.parametrize("indices", [3, 0.5, "01", None])
def test_indices_that_are_no_list_are_refused(view, indices):
    with pytest.raises(ValueError, match="layer 1"):
        Decisions(view.features, {1: indices})
    with pytest.raises(ValueError, match="layer"):
        Decisions(view.features, {1: [0], "x": []})
