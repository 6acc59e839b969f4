"""Steering: the vector is added at the given strength."""

from __future__ import annotations

import pytest
import torch

from caft_utils.directions import Directions
from caft_utils.interventions import Steer, steer

VECTOR = torch.arange(64.0)


def test_the_vector_is_added_at_every_position():
    h = torch.randn(2, 5, 64)
    torch.testing.assert_close(Steer({1: VECTOR}, -2.0).edit(1, h), h - 2 * VECTOR)
    torch.testing.assert_close(Steer({1: VECTOR}).edit(1, h), h + VECTOR)


def test_each_layer_has_its_own_vector():
    h, steering = torch.randn(3, 64), Steer({0: VECTOR, 2: -VECTOR})
    assert steering.layers == [0, 2]
    torch.testing.assert_close(steering.edit(0, h) + steering.edit(2, h), 2 * h)


def test_the_function_makes_the_class():
    assert steer({1: VECTOR}, 2).fingerprint == Steer({1: VECTOR}, 2.0).fingerprint


@pytest.mark.parametrize(
    "vectors, message",
    [
        ({1: torch.ones(2, 64)}, r"expected one vector \[d\]"),
        ({}, "at least one layer"),
        (Directions({1: torch.eye(64)[:1]}), r"rivals.steering_vectors\(found\).*got Directions"),
    ],
)
def test_wrong_vectors_are_refused(vectors, message):
    with pytest.raises(ValueError, match=message):
        Steer(vectors)
