"""The quality of SAEs: each measure equals its definition."""

from __future__ import annotations

import pytest
import torch
from helpers.saes import jumprelu_sae, random_sae
from helpers.texts import random_chats

from caft_utils.losses import mean_answer_loss
from caft_utils.residual import site
from caft_utils.saes import SAEs, sae_quality


@pytest.fixture
def chats(tokenizer):
    return random_chats(tokenizer, rows=40)


def test_quality_is_as_defined(model, chats):
    saes = SAEs({1: random_sae()})
    states = []
    for example in chats:
        with torch.no_grad():
            hidden = model(torch.tensor([example.input_ids]), output_hidden_states=True).hidden_states[2]
        states.append(hidden[0, 1:])
    h = torch.cat(states).double()
    latents = saes.encode(1, h.float())
    rest = h - saes[1].decode(latents).double()
    expected = 1 - rest.square().sum() / (h - h.mean(0)).square().sum()
    found = sae_quality(model, chats, saes)[1]
    assert found["explained_variance"] == pytest.approx(expected.item(), rel=1e-4)
    assert found["l0"] == pytest.approx((latents > 0).sum(1).double().mean().item(), abs=2e-3)
    assert found["dead"] == pytest.approx((latents <= 0).all(0).double().mean().item(), abs=1e-6)
    assert 0 < found["dead"] < 1 and "loss_recovered" not in found


def test_loss_recovered_is_one_for_a_perfect_sae_and_zero_for_a_useless_one(tiny, chats):
    model = tiny("gemma2")
    both_signs = torch.cat([torch.eye(64), -torch.eye(64)])
    perfect = SAEs({1: jumprelu_sae(both_signs.T, both_signs)})
    useless = SAEs({1: jumprelu_sae(torch.zeros(64, 4), torch.eye(64)[:4])})
    found = sae_quality(model, chats[:20], perfect, loss=True)[1]
    assert found["explained_variance"] == pytest.approx(1, abs=1e-6)
    assert found["l0"] == pytest.approx(64) and found["loss_recovered"] == pytest.approx(1, abs=1e-4)
    found = sae_quality(model, chats[:20], useless, loss=True)[1]
    assert found["loss_recovered"] == pytest.approx(0, abs=1e-6) and found["dead"] == 1
    assert not any(m._forward_hooks for m in model.modules())


def test_loss_recovered_is_as_defined(model, chats):
    saes = SAEs({1: random_sae()})

    def loss_with(change):
        def hook(module, args, output):
            return torch.stack([torch.cat([row[:1], change(row[1:])]) for row in output])

        handle = site(model, 1).register_forward_hook(hook)
        try:
            return mean_answer_loss(model, chats[:20])
        finally:
            handle.remove()

    sae, zero, clean = (
        loss_with(change) for change in (lambda h: saes.reconstruct(1, h), torch.zeros_like, lambda h: h)
    )
    found = sae_quality(model, chats[:20], saes, loss=True)[1]["loss_recovered"]
    assert found == pytest.approx((zero - sae) / (zero - clean), rel=1e-3)


def test_text_without_a_second_token_is_refused(model, chats):
    from caft_utils.chats import Chats

    with pytest.raises(ValueError, match="no row of two tokens"):
        sae_quality(model, Chats(chats.tokenizer, [{"text": "!"}]), SAEs({1: random_sae()}))
