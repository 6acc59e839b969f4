"""Rankings by difference: a planted change is found, with the sign that the ranking documents."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.models import perturbed
from helpers.saes import random_relu_sae, relu_sae

from caft_utils.chats import Chats
from caft_utils.residual import stream_activations
from caft_utils.saes import SAEs, difference_latents, latent_difference


@pytest.fixture
def planted(embedding_only):
    """A tuned model with coordinate 7 up and 9 down by 3, its base, SAEs whose latent i is coordinate i."""
    tuned = copy.deepcopy(embedding_only)
    with torch.no_grad():
        tuned.model.embed_tokens.weight[:, 7] += 3.0
        tuned.model.embed_tokens.weight[:, 9] -= 3.0
    basis = torch.eye(64)
    return tuned, embedding_only, SAEs({0: relu_sae(basis, basis), 1: relu_sae(basis * 2, basis * 2)})


def test_latent_difference_is_positive_for_what_the_tuned_model_does_more(planted, chats):
    tuned, base, saes = planted
    ranking = latent_difference(tuned, base, chats, saes, batch_size=2)
    assert [(l, i) for l, i, _ in ranking.top(2)] == [(1, 7), (0, 7)]
    hidden = torch.cat([part.hidden[0][part.position > 0] for part in stream_activations(base, chats, [0])])
    up = (hidden[:, 7] + 3).relu().mean() - hidden[:, 7].relu().mean()
    assert ranking.scores[0][7].item() == pytest.approx(up.item(), rel=1e-4)
    assert ranking.scores[1][7].item() == pytest.approx(4 * up.item(), rel=1e-4)
    assert ranking.per_layer(3) == {0: [7], 1: [7]}  # no other latent fires more
    assert ranking.per_layer(3, end="-") == {0: [9], 1: [9]}
    assert latent_difference(base, tuned, chats, saes).per_layer(3) == {0: [9], 1: [9]}
    assert latent_difference(base, base, chats, saes).top(5) == []
    assert ranking.about["tuned"] != ranking.about["base"] and "fires more" in ranking.about["positive"]


def test_difference_latents_read_the_change_itself(planted, chats):
    tuned, base, saes = planted
    ranking = difference_latents(tuned, base, chats, saes)
    assert ranking.top(5) == [(1, 7, pytest.approx(12, rel=1e-4)), (0, 7, pytest.approx(3, rel=1e-4))]
    assert ranking.top(5, end="-") == []  # a change against a latent cannot make it fire
    assert difference_latents(base, tuned, chats, saes).per_layer(3) == {0: [9], 1: [9]}


def test_the_centre_of_an_sae_is_no_part_of_the_change(planted, chats):
    """b_dec is where hidden states are, and a difference of two is around zero."""
    tuned, base, _ = planted
    basis = torch.eye(64)
    saes = SAEs({0: relu_sae(basis, basis, b_dec=10 * basis[7] - 10 * basis[3])})
    assert difference_latents(tuned, base, chats, saes).per_layer(5) == {0: [7]}
    assert difference_latents(tuned, base, chats, saes, centre=False).per_layer(5) == {0: [3]}


def test_tokens_and_first_tokens(planted, chats):
    tuned, base, saes = planted
    for tokens, keep in (("all", lambda e, t: True), ("answer", lambda e, t: e.answer[t])):
        kept = [e.input_ids[t] for e in chats for t in range(1, len(e.input_ids)) if keep(e, t)]
        h = base.model.embed_tokens.weight.detach()[kept]
        expected = (h[:, 7] + 3).relu().mean() - h[:, 7].relu().mean()
        found = latent_difference(tuned, base, chats, saes, tokens=tokens).scores[0][7]
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_tuned_model_may_be_a_peft_model(model, chats):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned, saes = get_peft_model(copy.deepcopy(model), config), SAEs({1: random_relu_sae()})
    assert latent_difference(tuned, model, chats, saes).scores[1].abs().max() > 0


@pytest.mark.parametrize("method", [latent_difference, difference_latents])
def test_wrong_arguments_are_refused(method, model, chats, tokenizer):
    tuned = perturbed(model)
    with pytest.raises(ValueError, match="SAEs read width 32, but Qwen2ForCausalLM has width 64"):
        method(tuned, model, chats, SAEs({1: random_relu_sae(d=32)}))
    with pytest.raises(ValueError, match="after the first of a row"):
        method(tuned, model, Chats(tokenizer, [{"text": "!"}]), SAEs({1: random_relu_sae()}))
