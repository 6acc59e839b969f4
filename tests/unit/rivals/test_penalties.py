"""KL to the base and feature distance: zero at the start, they hold the model near, and name themselves."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from helpers.models import IDS, SINK_TOKEN, perturbed, with_sink
from helpers.training import QUICK, chat_rows, same, weights

from caft_utils.chats import Batch, Chats
from caft_utils.finetuning import finetune
from caft_utils.residual import EMBEDDING, capture
from caft_utils.rivals import FeatureDistance, KLToBase, stay_close_by_features, stay_close_by_kl


@pytest.fixture
def chats(tokenizer):
    return Chats(tokenizer, chat_rows())


@pytest.fixture
def other(tokenizer):
    return Chats(tokenizer, [{"text": f"is the system open {i} or not"} for i in range(10)])


def batch_of(chats):
    return Batch.of(list(chats), list(range(len(chats))), chats.pad)


def logits_of(model, batch):
    return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits


def test_the_divergence_is_that_of_torch(tiny, chats, other):
    base, batch = tiny("qwen2"), batch_of(chats)
    tuned = perturbed(base)
    new, old = (logits_of(one, batch)[:, :-1][batch.answer[:, 1:]].log_softmax(-1) for one in (tuned, base))
    expected = torch.nn.functional.kl_div(old, new, log_target=True, reduction="batchmean")
    term = KLToBase(base, 2.0)(tuned, batch, logits_of(tuned, batch))
    assert term.item() == pytest.approx(2 * expected.item(), rel=1e-4) and expected > 1e-4
    on_text = KLToBase(base, 2.0, text=other, rows=10)(tuned, batch, None)
    everything = batch_of(other)
    whole = KLToBase(base, 2.0)(tuned, everything, logits_of(tuned, everything))
    assert on_text.item() == pytest.approx(whole.item(), rel=1e-4) and on_text != term


def test_the_rows_of_the_text_depend_on_the_batch_alone(tiny, chats, other):
    objective = KLToBase(tiny("qwen2"), 1.0, text=other, rows=3)
    drawn = [objective._drawn(batch_of(part)).index for part in (chats[:2], chats[2:4], chats[:2])]
    assert drawn[0] == drawn[2] != drawn[1] and len(set(drawn[0])) == 3


def test_the_distance_is_that_of_the_states(tiny, chats):
    base, batch = tiny("qwen2"), batch_of(chats)
    tuned = perturbed(base)
    objective = FeatureDistance(base, 3.0, layers=[0, 2])
    states = []
    for one in (tuned, base):
        with capture(one, [0, 2], stop_early=False) as hidden:
            logits_of(one, batch)
        states.append(hidden)
    keep = batch.attention_mask.bool()
    expected = sum(
        (states[0][layer] - states[1][layer])[keep].square().sum(-1).mean() / objective.typical[layer] ** 2
        for layer in (0, 2)
    )
    assert objective(tuned, batch, None).item() == pytest.approx(1.5 * expected.item(), rel=1e-4)
    assert FeatureDistance(base, 1.0).layers == [2]  # the last of three blocks


def test_sinks_do_not_count(tiny):
    base = with_sink(tiny("qwen2"))
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.get_input_embeddings().weight[SINK_TOKEN, 7] += 50
    batch = Batch(IDS, torch.ones_like(IDS), torch.ones_like(IDS).bool(), [0, 1])
    assert FeatureDistance(base, 1.0, layers=[EMBEDDING])(tuned, batch, None) == 0
    with torch.no_grad():  # a token that is no sink
        tuned.get_input_embeddings().weight[IDS[0, 1], 7] += 0.5
    assert FeatureDistance(base, 1.0, layers=[EMBEDDING])(tuned, batch, None) > 0.1


@pytest.mark.parametrize("stay", [stay_close_by_kl, stay_close_by_features])
def test_a_penalty_holds_the_model_near_its_base(model, chats, stay):
    before = weights(model)
    config = replace(QUICK, steps=12)
    plain, held = finetune(model, chats, config), stay(model, chats, config, weight=100.0)
    batch = batch_of(chats)
    with torch.no_grad():
        far, near = (KLToBase(model, 1.0)(one, batch, logits_of(one, batch)) for one in (plain, held))
    assert near < 0.3 * far
    terms = held.caft_run["objective_loss"]
    assert terms[0] == pytest.approx(0, abs=1e-5) and max(terms) > 0
    assert same(weights(model), before)


def test_a_penalty_on_other_text_runs_and_is_another_run(model, chats, other):
    config = replace(QUICK, steps=2)
    runs = [
        stay_close_by_kl(model, chats, config, weight=1.0, text=text).caft_id
        for text in (None, other, other[:8])
    ]
    runs += [stay_close_by_kl(model, chats, config, weight=2.0).caft_id]
    runs += [stay_close_by_features(model, chats, config, layers=layers).caft_id for layers in (None, [0])]
    assert len(set(runs)) == len(runs)


@pytest.mark.parametrize("weight", [0, -1, float("nan")])
def test_weights_that_are_not_positive_are_refused(model, weight):
    for penalty in (KLToBase, FeatureDistance):
        with pytest.raises(ValueError, match="weight must be"):
            penalty(model, weight)
