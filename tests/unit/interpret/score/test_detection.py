"""Detection: right explanations of planted latents score high, and accuracy needs both classes."""

from __future__ import annotations

import math

from helpers.planted import EXPLANATIONS, TOPICS, RuleJudge, planted

from caft_utils.interpret.score import Detection, Embedding, Fuzzing, Simulation, score_all
from caft_utils.interpret.score.word_overlap import WordOverlap


def test_right_explanations_of_planted_latents_score_high():
    judge = WordOverlap()
    scorers = [Detection(judge), Detection(judge, hard=True), Fuzzing(judge), Embedding(), Simulation(judge)]
    for topic, words in TOPICS.items():
        for text in (EXPLANATIONS[topic], f"Mentions of {topic}, such as {', '.join(words)}."):
            scores = score_all(scorers, text, planted(topic))
            for name in ("detection", "detection (hard)", "fuzzing"):
                assert scores[name].value >= 0.95, (topic, name, scores[name])
            assert scores["embedding"].value >= 0.9 and scores["simulation"].value >= 0.8
            assert scores["detection"].extra["balanced_accuracy"] >= 0.9
            assert min(scores["fuzzing"].extra.values()) >= 0.95


def test_replies_on_one_class_only_give_no_score():
    readable = RuleJudge(lambda window, marks: 0.7 if max(window.activations) > 0.3 else None)
    score = Detection(readable)("x", planted("pets"))
    assert math.isnan(score.value) and score.failures == 0.5 and score.n == 20 and score.extra == {}
