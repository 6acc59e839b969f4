"""Fuzzing: nothing but the explanation tells right marks from wrong ones."""

from __future__ import annotations

import math
from dataclasses import replace

from helpers.planted import RuleJudge, planted

from caft_utils.interpret.score import Fuzzing


def test_as_many_wrong_tokens_are_marked_and_nothing_gives_them_away():
    examples, judge = planted("crime"), RuleJudge()
    Fuzzing(judge)("x", examples)
    active = {}
    for window, marks in judge.asked:
        above = {t for t, value in enumerate(window.activations) if value > 0.3}
        if marks & above:
            assert marks == above, "the right marks are all tokens above the threshold, and no others"
            active[window.row] = marks
    assert len(active) == len(examples.scorer_windows)
    wrong = [(window, marks) for window, marks in judge.asked if marks != active.get(window.row)]
    assert sum(window.row in active for window, _ in wrong) == len(examples.scorer_windows)
    assert all(len(marks) == len(active[window.row]) for window, marks in wrong if window.row in active)
    assert {window.row for window, _ in wrong} - set(active) == {w.row for w in examples.scorer_negatives}
    assert sum(len(marks) for _, marks in wrong) == 2 * sum(map(len, active.values()))

    def by_count(window, marks):
        return len(marks) / 10

    def by_words(window, marks):
        return sum(any(sign.isalpha() for sign in window.tokens[t]) for t in marks) / 10

    for rule in (by_count, by_words):
        assert Fuzzing(RuleJudge(rule))("x", examples).value == 0.5
    by_place = Fuzzing(RuleJudge(lambda window, marks: sum(marks) / 100), seed=1)("x", examples)
    assert 0.3 < by_place.value < 0.7


def test_a_latent_that_fires_everywhere_in_a_window():
    examples, judge = planted("pets"), RuleJudge()
    full = [
        replace(w, activations=[1.0 + i / 100 for i in range(len(w.activations))])
        for w in examples.scorer_windows
    ]
    score = Fuzzing(judge)("x", replace(examples, scorer_windows=full, max_activation=1.2))
    for window, marks in judge.asked[: len(full)]:
        assert len(marks) == len(window.tokens) // 2
        assert min(marks) >= len(window.tokens) // 2 - 1, "the most active tokens, which are the last ones"
    assert math.isnan(score.extra["in_active_windows"]) and score.extra["in_other_windows"] == 0.5
    assert score.n == len(examples.scorer_windows) + len(examples.scorer_negatives)
