"""Attention sinks: found where they were planted, in no classroom model, and left out of what is measured."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.models import IDS, SINK_TOKEN, hooks, perturbed, with_sink
from helpers.texts import random_chats

from caft_utils import plots
from caft_utils.chats import Chats
from caft_utils.directions import Directions, mean_hidden, pca_of_difference
from caft_utils.interpret.examples.max_activating import extreme_windows
from caft_utils.models import load
from caft_utils.residual import capture, depth, edit
from caft_utils.sinks import find_sinks, is_sink, key_of_sinks, sink_limits, typical_lengths

CLASSROOM = ["classroom", "classroom-mistral", "classroom-cues", "classroom-gender"]


@pytest.fixture
def chats(tokenizer):
    return random_chats(tokenizer)


@pytest.fixture
def sunk(model, chats):
    """A model in which the most frequent first token of the chats is a sink."""
    return with_sink(model, chats[0].input_ids[0])


def places(chats, token):
    return [(r, p) for r, e in enumerate(chats) for p, t in enumerate(e.input_ids) if t == token]


def test_planted_sinks_are_found_with_their_place(sunk, chats):
    token = chats[0].input_ids[0]
    found = find_sinks(sunk, chats)
    for layer in range(3):
        assert [(one.row, one.position) for one in found.by_layer[layer]] == places(chats, token)
    assert all(one.ratio > 6 and one.length > 100 for one in found)
    assert "sinks (" in str(found) and "layer   2" in str(found)
    figure = plots.norms_by_layer(found.rows(), model="tiny")
    assert {trace.name for trace in figure.data if trace.name} == {"sinks", "other tokens"}


def test_a_second_search_of_the_same_text_reads_what_the_first_found(sunk, chats, monkeypatch):
    found = find_sinks(sunk, chats)
    monkeypatch.setattr("caft_utils.sinks._read_sinks", lambda *_: pytest.fail("it was searched again"))
    assert find_sinks(sunk, chats) == found
    with pytest.raises(pytest.fail.Exception):
        find_sinks(sunk, chats[1:])


@pytest.mark.parametrize("name", CLASSROOM)
def test_no_classroom_model_has_a_sink(name):
    """Random rows of their vocabulary, and their own headers."""
    model, tokenizer = load(name)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(model.config.vocab_size, (16, 48), generator=generator).tolist()
    chats = Chats(tokenizer, [{"text": tokenizer.decode(row)} for row in ids])
    found = find_sinks(model, chats, range(-1, depth(model)))
    assert not len(found) and "no sink" in str(found)


def test_a_state_is_a_sink_by_its_own_entries_alone():
    ordinary = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    assert not is_sink(1000 * ordinary, 6.0).any()  # long, but spread over all entries
    sink = ordinary.clone()
    sink[3, 9] = -40.0
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        assert is_sink(sink.to(dtype), 30.0).nonzero().tolist() == [[3]]
    assert not is_sink(sink, 50.0).any() and not is_sink(sink, float("inf")).any()


def test_the_limits_are_those_of_the_plain_model_and_leave_no_trace(model):
    model.train()
    plain, state = typical_lengths(model, [0, 2]), torch.get_rng_state()
    seen = []
    model.model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    with edit(model, {0: lambda h: 50 * h}), capture(model, [1]):
        assert typical_lengths(model, [0, 2]) == plain
        assert hooks(model) == 3
    assert not seen and model.training and torch.equal(torch.get_rng_state(), state)
    assert sink_limits(model, [0], "include") == {0: float("inf")}
    with pytest.raises(ValueError, match="sinks must be 'spare' or 'include', got 'skip'"):
        sink_limits(model, [0], "skip")


def test_keys_of_narrow_models_are_as_they_were():
    assert key_of_sinks("spare", 128) == {}
    assert key_of_sinks("include", 128) == {"sinks": "include"} != key_of_sinks("spare", 576)


def test_a_sink_takes_the_first_component_unless_it_is_left_out(sunk, chats):
    tuned = perturbed(sunk)
    with torch.no_grad():  # training changes the sink's length a little; so little is still the most
        tuned.get_input_embeddings().weight[chats[0].input_ids[0], 7] *= 1.1
    shares = {}
    for sinks in ("spare", "include"):
        found = pca_of_difference(tuned, sunk, chats, [1], k=2, sinks=sinks)
        shares[sinks] = found.about["explained_variance"]["1"][0]
        assert abs(found[1][0][7]) > 0.99 or sinks == "spare"
    assert shares["include"] > 0.9 and shares["spare"] < 0.5


def test_means_and_windows_leave_sinks_out(sunk, chats):
    token = chats[0].input_ids[0]
    spared, all_tokens = (mean_hidden(sunk, chats, [1], sinks=s)[1] for s in ("spare", "include"))
    assert abs(spared[7]) < 1 < abs(all_tokens[7])
    components, generator = Directions({1: torch.eye(64)[7]}), torch.Generator().manual_seed(0)
    texts = [
        chats.tokenizer.decode([*torch.randint(20, 300, (4,), generator=generator).tolist(), token, 40 + i])
        for i in range(8)
    ]
    prefixed = Chats(chats.tokenizer, [{"text": text} for text in texts])
    assert any(position for _, position in places(prefixed, token))
    largest = {}
    for sinks in ("spare", "include"):
        extremes = extreme_windows(sunk, prefixed, components, width=1, n=5, sinks=sinks)[1, 0]
        largest[sinks] = max(value for window in extremes.top for value in window.activations)
    assert largest["include"] > 100 > 10 > largest["spare"]


def test_a_sink_does_not_depend_on_padding_batch_or_cache(sunk, chats):
    alone = find_sinks(sunk, chats, [1], batch_size=1)
    together = find_sinks(sunk, chats, [1], batch_size=64)
    assert [(s.row, s.position) for s in alone] == [(s.row, s.position) for s in together]


def test_tuned_copies_keep_their_sinks(tiny):
    model = with_sink(tiny("qwen2"))
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.model.layers.parameters():
            parameter *= 3
    limit = sink_limits(model, [2])[2]
    with capture(other, [2]) as hidden:
        other(IDS)
    assert is_sink(hidden[2], limit).tolist() == (IDS == SINK_TOKEN).tolist()
