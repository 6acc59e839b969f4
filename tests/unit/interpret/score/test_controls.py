"""Controls: scores of random explanations and of shuffled directions lie around one half."""

from __future__ import annotations

from statistics import mean

import numpy as np
import pytest
from helpers.planted import EXPLANATIONS, TOPICS, planted

from caft_utils.interpret.score import Detection, Embedding, Fuzzing, score_all
from caft_utils.interpret.score.controls import random_explanation, shuffle_activations
from caft_utils.interpret.score.word_overlap import WordOverlap

SCORERS = [Detection(WordOverlap()), Fuzzing(WordOverlap()), Embedding()]


@pytest.mark.parametrize("control", ["random explanation", "shuffled direction"])
def test_controls_are_at_one_half(control):
    scores = {scorer.name: [] for scorer in SCORERS}
    for topic in TOPICS:
        for seed in range(3):
            examples, text = planted(topic, seed=seed), EXPLANATIONS[topic]
            if control == "random explanation":
                text = random_explanation(EXPLANATIONS, topic, seed=seed)
            else:
                examples = shuffle_activations(examples, seed=seed)
            for name, score in score_all(SCORERS, text, examples).items():
                scores[name].append(score)
    for name, each in scores.items():
        values = [score.value for score in each]
        assert abs(mean(values) - 0.5) < 3 * np.std(values) / len(values) ** 0.5 + 0.005, (name, values)
        assert 0.45 < mean(values) < 0.55
        inside = mean(score.low <= 0.5 <= score.high for score in each)
        assert inside >= 0.8, f"{name}: only {inside:.0%} of the intervals hold one half"


def test_a_random_explanation_is_of_another_direction():
    drawn = {random_explanation(EXPLANATIONS, "pets", seed=seed) for seed in range(60)}
    assert EXPLANATIONS["pets"] not in drawn and len(drawn) == len(TOPICS) - 1
    with pytest.raises(ValueError, match="alike"):
        random_explanation({1: "dogs", 2: "dogs"}, 1)


def test_a_shuffled_direction_separates_text_from_activations():
    examples = planted("pets")
    shuffled = shuffle_activations(examples, seed=1)

    def text(each):
        windows = each.scorer_windows + each.scorer_negatives + each.hard_negatives
        return sorted(" ".join(window.tokens) for window in windows)

    assert text(shuffled) == text(examples) and shuffled.explainer_windows == examples.explainer_windows
    assert (
        0
        < len({w.row for w in shuffled.scorer_windows} & {w.row for w in examples.scorer_windows})
        < len(examples.scorer_windows)
    )
    assert all(w.peak_activation == max(w.activations) > 0.3 for w in shuffled.scorer_windows)
    assert all(max(w.activations) < 0.3 for w in shuffled.scorer_negatives)
    assert all(
        len(w.activations) == len(w.tokens) for w in shuffled.scorer_windows + shuffled.scorer_negatives
    )
