"""Interleaving, early stopping, and interventions at test only."""

from __future__ import annotations

import pytest
import torch
from helpers.training import QUICK, chat_rows, same, weights

from caft_utils import rivals
from caft_utils.chats import Chats
from caft_utils.directions import Directions
from caft_utils.finetuning import at_step, finetune
from caft_utils.interventions import ablate, steer


@pytest.fixture
def chats(tokenizer):
    return Chats(tokenizer, chat_rows())


@pytest.fixture
def benign(tokenizer):
    return Chats(tokenizer, [{"text": f"is the system open {i}"} for i in range(3)])


def test_the_share_of_benign_rows_is_that_of_the_result(chats, benign):
    for share, count in [(0.2, 2), (0.5, 8)]:
        both = rivals.mixed(chats, benign, share, seed=1)
        assert len(both) == len(both.rows) == 8 + count
        assert both[:8].fingerprint == chats.fingerprint and both.rows[:8] == chats.rows
        drawn = [row["text"] for row in both.rows[8:]]
        uses = [drawn.count(row["text"]) for row in benign.rows]
        assert max(uses) - min(uses) <= 1
    assert rivals.mixed(chats, benign, 0.5, 1).fingerprint != rivals.mixed(chats, benign, 0.5, 2).fingerprint


@pytest.mark.parametrize("share", [0, 1, 0.01])
def test_a_share_without_a_row_is_refused(chats, benign, share):
    with pytest.raises(ValueError, match="share"):
        rivals.mixed(chats, benign, share)


def test_interleaving_trains_on_the_mixed_rows(model, chats, benign):
    tuned = rivals.interleave(model, chats, QUICK, benign=benign, share=0.2, seed=2)
    assert tuned.caft_run["chats"] == rivals.mixed(chats, benign, 0.2, 2).fingerprint


def test_stopping_early_is_a_snapshot(model, chats):
    early = rivals.stop_early(model, chats, QUICK, step=2, lr=1e-3)
    assert early.caft_run["recipe"]["lr"] == 1e-3 and early.caft_run["steps"] == 2
    whole = finetune(model, chats, QUICK, snapshots=(2,))
    assert same(weights(rivals.stop_early(model, chats, QUICK, step=2)), weights(at_step(whole, model, 2)))


def test_at_test_only_the_model_is_the_plain_one(model, chats):
    found, plain = Directions({1: torch.eye(64)[:1]}), finetune(model, chats, QUICK)
    ablated, ablation = rivals.ablate_at_test(model, chats, QUICK, directions=found)
    steered, steering = rivals.steer_at_test(model, chats, QUICK, vectors={1: torch.ones(64)}, strength=2.0)
    assert ablated.caft_id == steered.caft_id == plain.caft_id
    assert ablation.fingerprint == ablate(found).fingerprint
    assert steering.fingerprint == steer({1: torch.ones(64)}, -2.0).fingerprint
