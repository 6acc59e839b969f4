"""Scores are scored: a score that follows the truth is told from one that is blind."""

from __future__ import annotations

import random

import pytest

from caft_utils import Directions, load
from caft_utils.classroom.personas.acceptance import true_persona
from caft_utils.classroom.personas.labels import labelled
from caft_utils.classroom.score_validity import (
    LabelledDirection,
    judged,
    known_directions,
    label_explanation,
    validity,
)


def planted(n=40):
    labels = ["domain: pets", "domain: travel", "persona: villain"]
    known = []
    for i in range(n):
        label = labels[i % 3]
        f1 = {other: 0.9 if other == label else 0.1 + 0.05 * (i % 2) for other in labels}
        known.append(LabelledDirection("latent", (1, i, "+"), label, f1))
    return known


def test_a_score_that_follows_the_truth_and_one_that_is_blind():
    rng = random.Random(0)

    def score(text, one):
        right = text == label_explanation(one.label)
        return {"good": 0.7 * right + 0.2 * rng.random(), "blind": rng.random()}

    rows = judged(planted(), score)
    assert len(rows) == 120 and sum(row["right"] for row in rows) == 40
    found = validity(rows)
    assert found["good"]["auroc"][0] == 1.0 and found["good"]["spearman"][0] > 0.6
    value, low, high = found["blind"]["auroc"]
    assert low < 0.5 < high and low < value < high
    assert found["blind"]["n"] == 120


def test_pairs_without_a_score_are_left_out_and_counted():
    def score(text, one):
        return {"some": float("nan") if one.key[1] < 10 else float("pets" in text)}

    assert validity(judged(planted(), score))["some"]["n"] == 90


def test_an_explanation_names_the_words_of_its_label():
    assert '"rabbit"' in label_explanation("domain: pets")
    assert "persona villain" in label_explanation("persona: villain")


def test_wrong_explanations_need_another_label():
    alike = [one for one in planted() if one.label == "domain: pets"]
    with pytest.raises(ValueError, match="another label"):
        judged(alike, lambda text, one: {})


def test_the_persona_is_known_by_its_direction_and_by_no_random_one():
    model, tokenizer = load("classroom")
    text = labelled(tokenizer, 250, seed=3)
    truth = Directions({2: true_persona(model, tokenizer)[2].mean(0)[None]})
    sides = {one.key[2]: one for one in known_directions(model, text, truth)}
    assert (sides["+"].label, sides["-"].label) == ("persona: villain", "persona: kind")
    chance = {one.key[2]: one for one in known_directions(model, text, truth.random_like(0), least=0.0)}
    assert chance["+"].f1["persona: villain"] < sides["+"].f1["persona: villain"] - 0.1
