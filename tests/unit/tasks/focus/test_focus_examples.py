"""The data-generating process: how often label and spurious value agree, and that values are uniform."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from caft_utils.tasks.focus import FocusExample, SpuriousFeature, agreement, draw_examples

LABELS = ("x", "y", "z")
FEATURE = SpuriousFeature("the colour", {f"colour {i}": LABELS[i % 3] for i in range(6)})
N = 3000


def drawn(rho, **more):
    options = {"core": "the shape", "rho": rho, "n": N, "rng": random.Random(0)} | more
    return draw_examples(FEATURE, lambda label, f, value, rng: f"{label} {value}", LABELS, **options)


@pytest.mark.parametrize("rho", [0.0, 0.1, 1 / 3, 0.6, 0.9, 0.99, 1.0])
def test_the_label_is_that_of_the_value_with_probability_rho(rho):
    error = math.sqrt(rho * (1 - rho) / N)
    assert abs(agreement(drawn(rho)) - rho) <= 4 * error


def test_values_are_uniform_and_the_other_labels_too():
    examples = drawn(0.1)
    values = Counter(one.value for one in examples)
    assert len(values) == 6 and all(abs(n - N / 6) < 5 * math.sqrt(N / 6) for n in values.values())
    others = Counter(one.label for one in examples if one.value == "colour 0" and one.label != "x")
    assert set(others) == {"y", "z"} and abs(others["y"] - others["z"]) < 5 * math.sqrt(sum(others.values()))


def test_a_third_of_agreement_makes_label_and_value_independent():
    examples = drawn(1 / 3)
    for value in FEATURE.values:
        labels = Counter(one.label for one in examples if one.value == value)
        assert all(abs(n - sum(labels.values()) / 3) < 60 for n in labels.values())


def test_flipped_data_keep_the_meaning_of_a_value_but_follow_another_map():
    examples = drawn(0.9, flip=True)
    following = {"x": "y", "y": "z", "z": "x"}
    assert all(one.spurious_label == FEATURE.values[one.value] for one in examples)
    moved = sum(one.label == following[one.spurious_label] for one in examples) / N
    assert abs(moved - 0.9) < 0.025 and abs(agreement(examples) - 0.05) < 0.02


def test_several_features_are_drawn_alike():
    other = SpuriousFeature("the size", {"big": "x", "small": "y"})
    examples = draw_examples(
        [FEATURE, other],
        lambda label, feature, value, rng: f"{feature.name} {value} {label}",
        LABELS,
        core="the shape",
        rho=0.5,
        n=N,
        rng=random.Random(1),
    )
    assert abs(sum(one.spurious == "the size" for one in examples) / N - 0.5) < 0.04
    assert abs(agreement(examples) - 0.5) < 0.04
    assert all(one.text == f"{one.spurious} {one.value} {one.label}" for one in examples)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rho": 1.2}, "rho"),
        ({"rho": -0.1}, "rho"),
        ({"n": 0}, "n must be"),
    ],
)
def test_impossible_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        drawn(change.pop("rho", 0.5), **change)


def test_a_value_with_an_unknown_label_is_refused():
    with pytest.raises(ValueError, match="not among x, y"):
        draw_examples(FEATURE, lambda *_: "text", LABELS[:2], core="c", rho=0.5, n=1, rng=random.Random(0))


def test_an_example_whose_label_is_no_option_is_refused():
    with pytest.raises(ValueError, match="label 'w' is not among"):
        FocusExample("text", "w", "x", LABELS, "c", "s")


def test_a_feature_without_values_is_refused():
    with pytest.raises(ValueError, match="no values"):
        SpuriousFeature("the colour", {})
