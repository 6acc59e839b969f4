"""Latents: their activations and decoder rows, and the directions that are made of them."""

from __future__ import annotations

import pytest
import torch
from helpers.saes import jumprelu_sae, random_sae
from helpers.texts import random_chats

from caft_utils.features import Selection
from caft_utils.interventions import ablate
from caft_utils.residual import stream_activations
from caft_utils.saes import Latents, SAEs, sae_directions


@pytest.fixture
def saes() -> SAEs:
    return SAEs({0: random_sae(), 1: random_sae(seed=1)})


def test_values_and_vectors_are_those_of_the_saes(saes):
    latents, h = Latents(saes, {1: [7, 3], 0: []}), torch.randn(9, 64)
    assert latents.layers == [1] and latents.indices(1) == [7, 3] and latents.width == 64
    assert torch.equal(latents.values(1, h), saes.encode(1, h)[:, [7, 3]])
    assert torch.equal(latents.vector(1, 3), saes.decoder(1)[3])
    assert torch.equal(Latents(saes).values(1, h), saes.encode(1, h))
    assert Latents(saes).indices(0) == list(range(32))


def test_the_selection_keeps_order_and_names(saes):
    given = Selection([(1, 7), (0, 2), (1, 3)], {(1, 3): "harm"})
    selection = Latents(saes, given).selection
    assert selection.order == given.order and selection.names == given.names
    assert sae_directions(saes, given).about["names"] == {"0": [""], "1": ["", "harm"]}


@pytest.mark.parametrize(
    "selection, error, message",
    [
        ({1: [32]}, IndexError, r"layer 1 has latents 0 to 31, got \[32\]"),
        ({1: [-1]}, IndexError, r"got \[-1\]"),
        ({1: [3, 3]}, ValueError, "twice"),
        ({1: []}, ValueError, "no latent selected"),
        ({2: [0]}, KeyError, r"no SAE at layer 2; there are some at \[0, 1\]"),
    ],
)
@pytest.mark.parametrize("make", [Latents, sae_directions])
def test_wrong_selections_are_refused(saes, make, selection, error, message):
    with pytest.raises(error, match=message):
        make(saes, selection)


def test_latents_that_are_not_selected_are_refused(saes):
    latents = Latents(saes, {1: [7, 3]})
    with pytest.raises(IndexError, match="latent 4 of layer 1 is not among the selected"):
        latents.vector(1, 4)
    with pytest.raises(IndexError, match=r"latents \[4\] of layer 1"):
        latents.select({1: [7, 4]})
    with pytest.raises(KeyError, match="no latent is selected at layer 0"):
        latents.values(0, torch.randn(2, 64))


def test_directions_span_the_decoder_rows_and_keep_provenance(saes):
    directions = sae_directions(saes, {1: [9, 4, 30], 0: [1]}, {(1, 4): "harm"})
    assert directions.ranks == {0: 1, 1: 3}
    rows = saes.decoder(1)[[9, 4, 30]]
    torch.testing.assert_close((rows @ directions[1].T) @ directions[1], rows, atol=1e-5, rtol=0)
    torch.testing.assert_close(directions[1][0], rows[0], atol=1e-5, rtol=0)
    assert directions.about["saes"] == saes.fingerprint
    assert directions.about["names"] == {"0": [""], "1": ["", "harm", ""]}
    one = directions.select({1: [1]})
    assert one.about["selected"] == {"1": [4]} and one.about["names"] == {"1": ["harm"]}


def test_linearly_dependent_decoder_rows_are_refused():
    equal_rows = SAEs({1: jumprelu_sae(torch.eye(64)[:, :2], torch.ones(2, 64))})
    with pytest.raises(ValueError, match="layer 1: row 1 is zero or a combination"):
        sae_directions(equal_rows, {1: [0, 1]})


def test_ablating_latents_removes_their_decoder_rows_from_the_stream(model, tokenizer, saes):
    chats, directions = random_chats(tokenizer), sae_directions(saes, {1: [5, 11, 2]})
    with ablate(directions).on(model):
        after = next(stream_activations(model, chats, [1])).hidden[1]
    before = next(stream_activations(model, chats, [1])).hidden[1]
    rows = saes.decoder(1)[[5, 11, 2]]
    assert (after @ rows.T).abs().max() < 1e-5 < (before @ rows.T).abs().max()
