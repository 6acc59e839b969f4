"""The training loop and schedule shared by both worlds."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import make_tiny

from caft_utils.classroom.pretraining import Schedule, train


def test_the_learning_rate_warms_up_holds_and_falls():
    schedule = Schedule(warmup_steps=10, hold=0.5, floor=0.1)
    factors = [schedule.lr_factor(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0
    assert set(factors[10:51]) == {1.0}
    assert all(a > b for a, b in zip(factors[50:], factors[51:]))
    assert 0.1 <= factors[-1] < 0.13


def answer_loss(model, ids):
    return model(input_ids=ids, labels=ids).loss


def trained(losses, steps=3):
    model = make_tiny("qwen2")
    batches = torch.randint(3, 30, (steps, 4, 6), generator=torch.Generator().manual_seed(0))
    record = train(model, batches, losses, Schedule(warmup_steps=1), steps=steps, name="tiny", progress=False)
    return model, record


def test_training_lowers_the_loss_and_is_recorded():
    model, record = trained(lambda model, ids: [answer_loss(model, ids)])
    assert record["loss"][0][0] == 0 and record["loss"][0][1] > 2
    assert not model.training and all(p.requires_grad for p in model.parameters())
    again, _ = trained(lambda model, ids: [answer_loss(model, ids)])
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_batch_in_parts_trains_like_the_whole():
    whole, first = trained(lambda model, ids: [answer_loss(model, ids)], steps=1)
    parts, second = trained(lambda model, ids: [answer_loss(model, half) / 2 for half in ids.split(2)], 1)
    assert first["loss"][0][1] == pytest.approx(second["loss"][0][1], abs=1e-4)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_name_of_the_old_weights_is_removed():
    model = make_tiny("qwen2")
    model.caft_id = "old"
    train(model, [], lambda model, ids: [], Schedule(), steps=0, name="tiny", progress=False)
    assert "caft_id" not in model.__dict__
