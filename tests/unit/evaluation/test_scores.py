"""Scores and their intervals: AUROC, correlation and mean over rows of text."""

from __future__ import annotations

import random
from statistics import mean

import numpy as np
import pytest
from scipy import stats

from caft_utils.evaluation.scores import auroc, auroc_score, correlation_score, mean_score, spearman


def test_auroc_counts_pairs_and_halves_ties():
    rng = random.Random(0)
    values, active = [rng.randrange(6) / 5 for _ in range(40)], [rng.random() < 0.4 for _ in range(40)]
    p = [v for v, a in zip(values, active) if a]
    n = [v for v, a in zip(values, active) if not a]
    want = mean((x > y) + (x == y) / 2 for x in p for y in n)
    found = auroc_score("x", values, active, range(40))
    assert found.value == pytest.approx(want) and found.low < want < found.high and found.n == 40
    assert found == auroc_score("x", values, active, range(40)), "the same input gives the same interval"


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    truth, covered = 0.7602, 0  # of two normals whose means are one standard deviation apart: Phi(1 / sqrt 2)
    for _ in range(100):
        values = [*rng.normal(1, 1, 25), *rng.normal(0, 1, 25)]
        found = auroc_score("x", values, [True] * 25 + [False] * 25, range(50))
        covered += found.low <= truth <= found.high
    assert 87 <= covered <= 100


def test_windows_of_one_row_count_as_one():
    rng = np.random.default_rng(1)
    values, active, rows = list(rng.normal(size=20)), [i < 10 for i in range(20)], list(range(20))
    single = auroc_score("x", values, active, rows)
    copied = auroc_score("x", values * 9, active * 9, rows * 9)
    apart = auroc_score("x", values * 9, active * 9, range(180))
    assert copied.value == pytest.approx(single.value)
    assert copied.high - copied.low == pytest.approx(single.high - single.low, abs=1e-9)
    assert apart.high - apart.low < 0.5 * (copied.high - copied.low)


def test_no_error_does_not_mean_no_uncertainty():
    few = auroc_score("x", [1, 1, 0, 0], [True, True, False, False], range(4))
    many = auroc_score("x", [1] * 50 + [0] * 50, [True] * 50 + [False] * 50, range(100))
    assert few.value == many.value == few.high == 1 and few.low < 0.3 and 0.9 < many.low < 1
    assert auroc_score("x", [0, 1], [True, False], range(2)).low == 0


def test_pearson_of_all_tokens():
    rng = np.random.default_rng(2)
    true = [list(rng.random(7)) for _ in range(12)]
    predicted = [[v + rng.normal() / 3 for v in row] for row in true]
    found = correlation_score("x", predicted, true, range(12))
    assert found.value == pytest.approx(np.corrcoef(np.ravel(predicted), np.ravel(true))[0, 1])
    assert found.low < found.value < found.high < 1
    holes = [[None, *row[1:]] for row in predicted]
    want = np.corrcoef(np.ravel([row[1:] for row in predicted]), np.ravel([row[1:] for row in true]))[0, 1]
    assert correlation_score("x", holes, true, range(12)).value == pytest.approx(want)
    assert np.isnan(correlation_score("x", [[0.5] * 7] * 12, true, range(12)).value)


def test_mean_of_prompts():
    found = mean_score("x", [1.0, 2.0, None, 3.0, float("nan")])
    assert found.value == 2 and found.n == 3 and found.failures == 0.4 and found.low < 2 < found.high


def test_unreadable_values_are_left_out_and_reported():
    found = auroc_score("x", [0.9, None, 0.1, float("nan")], [True, True, False, False], range(4))
    assert found.value == 1 and found.n == 2 and found.failures == 0.5
    nothing = auroc_score("x", [0.9, None], [True, False], range(2))
    assert np.isnan(nothing.value) and nothing.n == 1


def test_rank_statistics_are_those_of_scipy():
    rng = np.random.default_rng(3)
    x, y, positive = rng.integers(0, 5, 40), rng.integers(0, 5, 40), rng.random(40) < 0.4
    u = stats.mannwhitneyu(x[positive], x[~positive]).statistic
    assert auroc(x, positive) == pytest.approx(u / (positive.sum() * (~positive).sum()))
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert np.isnan(auroc(x, np.ones(40, dtype=bool))) and np.isnan(spearman(x, np.ones(40)))
