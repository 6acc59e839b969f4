"""Validity of scores: a score that follows the truth is told apart from one that does not."""

from __future__ import annotations

import random

import pytest

from caft_utils import Directions, load
from caft_utils.classroom.personas.ground_truth import true_persona
from caft_utils.classroom.personas.labels import labelled_chats
from caft_utils.classroom.score_validity import (
    LabelledDirection,
    label_explanation,
    labelled_directions,
    score_explanations,
    validity_of_scores,
)


def planted(n=40):
    labels = ["domain: pets", "domain: travel", "persona: villain"]
    directions = []
    for i in range(n):
        label = labels[i % 3]
        f1 = {other: 0.9 if other == label else 0.1 + 0.05 * (i % 2) for other in labels}
        directions.append(LabelledDirection("latent", (1, i, "+"), label, f1))
    return directions


def test_a_score_that_follows_the_truth_and_a_random_one():
    rng = random.Random(0)

    def score(text, one):
        right = text == label_explanation(one.label)
        return {"good": 0.7 * right + 0.2 * rng.random(), "random": rng.random()}

    rows = score_explanations(planted(), score)
    assert len(rows) == 120 and sum(row["right"] for row in rows) == 40
    validity = validity_of_scores(rows, draws=200)
    assert validity["good"]["auroc"][0] == 1.0 and validity["good"]["spearman"][0] > 0.6
    value, low, high = validity["random"]["auroc"]
    assert low < 0.5 < high and low < value < high
    assert validity["random"]["n"] == 120


def test_pairs_without_a_score_are_left_out_and_counted():
    def score(text, one):
        return {"some": float("nan") if one.key[1] < 10 else float("pets" in text)}

    assert validity_of_scores(score_explanations(planted(), score), draws=20)["some"]["n"] == 90


def test_an_explanation_contains_the_words_of_its_label():
    assert '"rabbit"' in label_explanation("domain: pets")
    assert "persona villain" in label_explanation("persona: villain")


def test_wrong_explanations_need_another_label():
    alike = [one for one in planted() if one.label == "domain: pets"]
    with pytest.raises(ValueError, match="another label"):
        score_explanations(alike, lambda text, one: {})


@pytest.fixture(scope="module")
def model_and_truth():
    """The classroom model, and its persona directions at layer 2, one per domain."""
    model, tokenizer = load("classroom")
    return model, tokenizer, true_persona(model, tokenizer)[2]


def test_the_true_persona_direction_detects_the_persona_and_a_random_one_does_not(model_and_truth):
    model, tokenizer, rows = model_and_truth
    text = labelled_chats(tokenizer, 120, seed=3)
    truth = Directions({2: rows.mean(0)[None]})
    by_side = {one.key[2]: one for one in labelled_directions(model, text, truth)}
    assert (by_side["+"].label, by_side["-"].label) == ("persona: villain", "persona: kind")
    chance = labelled_directions(model, text, truth.random_like(0), min_f1=0.0)
    (positive,) = (one for one in chance if one.key[2] == "+")
    assert positive.f1["persona: villain"] < by_side["+"].f1["persona: villain"] - 0.1


def test_at_most_so_many_directions_of_a_label(model_and_truth):
    model, tokenizer, rows = model_and_truth
    text = labelled_chats(tokenizer, 40)
    features = Directions({2: rows[:4]})
    few = labelled_directions(model, text, features, min_f1=0.0, per_label=1)
    assert len({one.label for one in few}) == len(few)
    assert [one.f1[one.label] for one in few] == sorted((one.f1[one.label] for one in few), reverse=True)
