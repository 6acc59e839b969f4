"""Affine concept editing: every state gets the component that the strength asks for."""

from __future__ import annotations

import pytest
import torch

from caft_utils.directions import Directions
from caft_utils.interventions import ablate, edit_affinely

R, MEAN = {1: torch.linspace(-1, 2, 64)}, {1: torch.linspace(1, 0, 64)}
UNIT = R[1] / R[1].norm()


def test_the_formula_of_the_paper_in_float64():
    h, r, mu = torch.randn(5, 64).double(), R[1].double(), MEAN[1].double()
    projection = torch.outer(r, r) / (r @ r)
    for strength in (0.0, 1.0, -0.5):
        expected = h - h @ projection + mu @ projection + strength * r
        edited = edit_affinely(R, MEAN, strength).edit(1, h)
        torch.testing.assert_close(edited, expected, atol=1e-5, rtol=1e-5)


def test_strength_0_is_one_mean_and_strength_1_the_other():
    h, plus = torch.randn(5, 64), MEAN[1] + R[1]
    for strength, mean in [(0.0, MEAN[1]), (1.0, plus)]:
        component = edit_affinely(R, MEAN, strength).edit(1, h) @ UNIT
        torch.testing.assert_close(component, (mean @ UNIT).expand(5))


def test_at_strength_0_it_is_mean_ablation():
    mean_ablation = ablate(Directions(R), mean=MEAN)
    assert edit_affinely(R, MEAN).fingerprint == mean_ablation.fingerprint
    assert edit_affinely(R, MEAN, 1).fingerprint != mean_ablation.fingerprint


@pytest.mark.parametrize(
    "vectors, mean, message",
    [
        (R, {0: torch.zeros(64)}, "mean must have the layers"),
        (R, {1: torch.zeros(63)}, "one width|size of tensor"),
        ({1: torch.zeros(64)}, MEAN, "zero|dependent"),
        ({1: torch.ones(2, 64)}, MEAN, r"expected one vector \[d\]"),
    ],
)
def test_what_does_not_fit_is_refused(vectors, mean, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        edit_affinely(vectors, mean)
