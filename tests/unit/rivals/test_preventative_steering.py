"""Preventative steering: the vectors, their increments, and a control of equal norm."""

from __future__ import annotations

import pytest
import torch
from helpers.training import QUICK, chat_rows

from caft_utils.chats import Chats
from caft_utils.directions import Directions, class_contrast, mean_hidden
from caft_utils.finetuning import finetune
from caft_utils.interventions import steer
from caft_utils.rivals import increments, random_vectors, steer_preventatively, steering_vectors


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(0)
    return {layer: (layer + 1) * torch.randn(64, generator=generator) for layer in (0, 1, 2)}


def test_vectors_have_the_length_of_the_difference(model, tokenizer):
    chats = Chats(tokenizer, chat_rows())
    found = steering_vectors(class_contrast(model, chats[:4], chats[4:], [0, 2]))
    plus, minus = (mean_hidden(model, part, [0, 2]) for part in (chats[:4], chats[4:]))
    for layer in (0, 2):
        torch.testing.assert_close(found[layer].double(), plus[layer] - minus[layer], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rows", [{1: torch.eye(64)[:2]}, {1: torch.eye(64)[:1]}])
def test_directions_without_lengths_are_refused(rows):
    with pytest.raises(ValueError, match="one direction a layer with its length"):
        steering_vectors(Directions(rows))


def test_increments_add_up_to_the_vectors(vectors):
    total = torch.zeros(64)
    for layer, step in increments(vectors).items():
        total = total + step
        torch.testing.assert_close(total, vectors[layer])


def test_the_control_keeps_norms_and_cosines_and_has_another_direction(vectors):
    drawn = random_vectors(vectors, 1)
    old, new = (torch.stack([one[layer] for layer in vectors]) for one in (vectors, drawn))
    torch.testing.assert_close(new @ new.T, old @ old.T, atol=1e-3, rtol=1e-4)
    assert ((old * new).sum(1) / old.norm(dim=1) ** 2).abs().max() < 0.5
    assert torch.equal(random_vectors(vectors, 1)[0], drawn[0])
    assert not torch.equal(random_vectors(vectors, 2)[0], drawn[0])


def test_the_run_is_one_under_steering(model, tokenizer, vectors):
    chats = Chats(tokenizer, chat_rows())
    tuned = steer_preventatively(model, chats, QUICK, vectors=vectors, strength=-0.5)
    assert tuned.caft_run["during"] == steer(vectors, -0.5).fingerprint
    assert tuned.caft_id == finetune(model, chats, QUICK, during=steer(vectors, -0.5)).caft_id
