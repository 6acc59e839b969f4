"""Ablation of one direction of the computation: what the forward pass sees, and what the gradient sees."""

from __future__ import annotations

import pytest
import torch
from helpers.models import states

from caft_utils.directions import Directions
from caft_utils.interventions import ablate, ablate_activation, ablate_gradient


@pytest.fixture
def bad() -> Directions:
    generator = torch.Generator().manual_seed(0)
    return Directions({1: torch.randn(3, 64, generator=generator)})


def passed(intervention, hidden, outside):
    """Return the edited states, and the gradient that reaches `hidden` where `outside` reaches the edit."""
    hidden = hidden.clone().requires_grad_()
    edited = intervention.edit(1, hidden)
    edited.backward(outside)
    return edited.detach(), hidden.grad


def test_each_does_one_half_of_ablation_exactly(bad):
    h, outside = torch.randn(2, 5, 64), torch.randn(2, 5, 64)
    values, gradient = passed(ablate(bad), h, outside)
    forward_values, forward_gradient = passed(ablate_activation(bad), h, outside)
    backward_values, backward_gradient = passed(ablate_gradient(bad), h, outside)
    assert torch.equal(forward_values, values) and torch.equal(forward_gradient, outside)
    assert torch.equal(backward_values, h) and torch.equal(backward_gradient, gradient)
    assert (gradient @ bad[1].T).abs().max() < 1e-5 < (outside @ bad[1].T).abs().max()


def test_the_mean_is_what_activations_become(bad):
    h, mean = torch.randn(2, 5, 64), {1: torch.randn(64)}
    edited = ablate_activation(bad, mean=mean).edit(1, h)
    assert torch.equal(edited, ablate(bad, mean=mean).edit(1, h))
    with pytest.raises(ValueError, match="must have the layers"):
        ablate_activation(bad, mean={0: torch.zeros(64)})


def test_outside_of_training_they_are_ablation_and_nothing(bad, model):
    plain = states(model)[2]
    with torch.no_grad(), ablate(bad).on(model):
        ablated = states(model)[2]
    with torch.no_grad(), ablate_activation(bad).on(model):
        assert torch.equal(states(model)[2], ablated)
    with torch.no_grad(), ablate_gradient(bad).on(model):
        assert torch.equal(states(model)[2], plain)


def test_the_gradient_at_a_sink_is_left_alone(bad):
    hidden, outside = torch.randn(2, 5, 64), torch.randn(2, 5, 64)
    hidden[:, 0, 7] = 1000.0  # the first token is a sink
    hidden.requires_grad_()
    ablate_gradient(bad).edit_but_sinks(1, 100.0, hidden).backward(outside)
    assert torch.equal(hidden.grad[:, 0], outside[:, 0])
    assert (hidden.grad[:, 1:] @ bad[1].T).abs().max() < 1e-5
