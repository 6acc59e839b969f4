"""Erasure: an oblique projection in the forward pass, and its transpose in the backward pass."""

from __future__ import annotations

import pytest
import torch
from helpers.models import IDS

from caft_utils.chats import Chats
from caft_utils.directions import Eraser, leace
from caft_utils.interventions import Erase, erase
from caft_utils.residual import stream_activations


@pytest.fixture
def eraser() -> Eraser:
    generator = torch.Generator().manual_seed(0)
    write = torch.linalg.qr(torch.randn(64, 2, generator=generator)).Q.T
    beside = torch.randn(2, 64, generator=generator)
    read = write + beside - beside @ write.T @ write
    return Eraser({1: read}, {1: write}, {1: torch.randn(64, generator=generator)})


def test_values_are_projected_and_gradients_by_the_transpose(eraser):
    oblique = torch.eye(64) - eraser.write[1].T @ eraser.read[1]
    assert (oblique - oblique.T).norm() > 1  # so the order matters
    hidden, outside, mean = torch.randn(5, 64, requires_grad=True), torch.randn(5, 64), eraser.mean[1]
    edited = erase(eraser).edit(1, hidden)
    edited.backward(outside)
    torch.testing.assert_close(edited, mean + (hidden - mean) @ oblique.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(hidden.grad, outside @ oblique, atol=1e-4, rtol=1e-4)


def test_what_it_reads_is_constant_afterwards(eraser):
    edited = erase(eraser).edit(1, 10 * torch.randn(5, 64))
    constant = (eraser.read[1] @ eraser.mean[1]).expand(5, 2)
    torch.testing.assert_close(edited @ eraser.read[1].T, constant, atol=1e-3, rtol=1e-4)


def test_in_a_model_the_classes_have_one_mean(model, tokenizer):
    words = ["file", "question"] * 10
    rows = [{"text": f"what is the {word} and {i} with you"} for i, word in enumerate(words)]
    chats = Chats(tokenizer, rows)
    means = {}
    with erase(leace(model, chats, words, [1])).on(model):
        for batch in stream_activations(model, chats, [1]):
            of_word = torch.tensor([words[row] == "file" for row in batch.row.tolist()])
            means = [batch.hidden[1][of_word].mean(0), batch.hidden[1][~of_word].mean(0)]
    torch.testing.assert_close(*means, atol=1e-4, rtol=1e-4)
    assert model(IDS).logits.isfinite().all()


def test_the_function_makes_the_class(eraser):
    assert erase(eraser).fingerprint == Erase(eraser).fingerprint
    other = Eraser(eraser.read, eraser.read, eraser.mean)
    assert erase(other).fingerprint != erase(eraser).fingerprint
