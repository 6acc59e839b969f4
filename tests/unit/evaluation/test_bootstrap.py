"""The clustered interval: its value, its width, and how often it covers the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta

from caft_utils.evaluation.bootstrap import Rate, clustered_rate


def spread(rate):
    return rate.high - rate.low


def world(rng, questions, seeds, samples, mean=0.3, by_question=1.0, by_seed=0.5):
    """Draw answers whose log-odds have an effect of the question and one of the seed."""
    base = math.log(mean / (1 - mean))
    q, s = rng.normal(0, by_question, questions), rng.normal(0, by_seed, seeds)
    hits, question, seed = [], [], []
    for i in range(questions):
        for j in range(seeds):
            p = 1 / (1 + math.exp(-(base + q[i] + s[j])))
            hits.append(rng.binomial(samples, p))
            question.append(i)
            seed.append(j)
    return hits, [samples] * len(hits), question, seed


def true_mean(mean=0.3, by_question=1.0, by_seed=0.5):
    draws = np.random.default_rng(99).normal(0, math.hypot(by_question, by_seed), 10**6)
    return float((1 / (1 + np.exp(-(math.log(mean / (1 - mean)) + draws)))).mean())


def test_value_and_counts():
    rate = clustered_rate([1, 0, 2], [1, 1, 4], ["a", "b", "c"], [0, 0, 0])
    assert rate.value == pytest.approx(0.5) and rate.n == 6 and rate.low < 0.5 < rate.high
    assert str(Rate(0.0424, 0.01, 0.079, 100)) == "4.2 % [1.0, 7.9]"


def test_wider_than_naive_when_answers_within_a_question_are_alike():
    rng = np.random.default_rng(0)
    hits = np.repeat(rng.binomial(1, 0.3, 30), 20)  # 30 questions, 20 identical answers to each
    question = np.repeat(np.arange(30), 20)
    clustered = clustered_rate(hits, np.ones(600), question, np.zeros(600))
    naive = 2 * 1.96 * math.sqrt(hits.mean() * (1 - hits.mean()) / 600)
    assert spread(clustered) > 3 * naive
    assert spread(clustered) == pytest.approx(naive * math.sqrt(20), rel=0.15)


def test_as_wide_as_naive_when_all_answers_are_independent():
    rng = np.random.default_rng(1)
    hits = rng.binomial(1, 0.3, 800)
    rate = clustered_rate(hits, np.ones(800), np.arange(800), np.zeros(800))
    assert spread(rate) == pytest.approx(2 * 1.96 * math.sqrt(0.3 * 0.7 / 800), rel=0.12)


def test_seeds_that_differ_widen_it():
    question, seed = np.tile(np.arange(50), 4), np.repeat(np.arange(4), 50)
    alike = clustered_rate(np.tile(np.arange(50) % 2, 4), np.ones(200), question, seed)
    apart = clustered_rate(np.repeat([1, 1, 0, 0], 50), np.ones(200), question, seed)
    assert alike.value == apart.value == 0.5 and spread(apart) > 2 * spread(alike)


def test_covers_the_truth():
    """About 95 % of simulated experiments have an interval that contains the true mean."""
    truth, covered = true_mean(), 0
    for i in range(200):
        hits, trials, question, seed = world(np.random.default_rng(i), 40, 5, 3)
        rate = clustered_rate(hits, trials, question, seed, draws=500, rng=i)
        covered += rate.low <= truth <= rate.high
    assert 0.88 <= covered / 200 <= 1


def test_nothing_and_everything_have_an_open_end():
    none = clustered_rate([0] * 60, [1] * 60, [i % 20 for i in range(60)], [0] * 60)
    assert none.low == 0 and none.high == pytest.approx(1 - 0.025 ** (1 / 20))
    everything = clustered_rate([1] * 60, [1] * 60, [i % 20 for i in range(60)], [0] * 60)
    assert everything.high == 1 and everything.low == pytest.approx(0.025 ** (1 / 20))


def test_same_arguments_same_interval_and_order_does_not_matter_to_the_value():
    hits, trials, question, seed = world(np.random.default_rng(2), 12, 3, 4)
    assert clustered_rate(hits, trials, question, seed) == clustered_rate(hits, trials, question, seed)
    assert clustered_rate(hits, trials, question, seed, rng=1) != clustered_rate(hits, trials, question, seed)
    back = clustered_rate(hits[::-1], trials[::-1], question[::-1], seed[::-1])
    assert back.value == pytest.approx(clustered_rate(hits, trials, question, seed).value)


def test_without_trials_there_is_no_rate():
    rate = clustered_rate([], [], [], [])
    assert math.isnan(rate.value) and math.isnan(rate.low) and rate.n == 0
    with_empty = clustered_rate([1, 0, 0], [1, 0, 1], ["a", "b", "c"], [0, 0, 0])
    assert with_empty == clustered_rate([1, 0], [1, 1], ["a", "c"], [0, 0])


def test_errors():
    with pytest.raises(ValueError, match="one length"):
        clustered_rate([1], [1, 1], ["a", "b"], [0, 0])
    with pytest.raises(ValueError, match="0 <= hits <= trials"):
        clustered_rate([2], [1], ["a"], [0])


@pytest.mark.parametrize("questions", [1, 2, 4])
def test_few_questions_have_a_wide_interval_however_many_answers(questions):
    """They cannot show how much questions differ, so each counts as one trial."""
    n = 50 * questions
    rate = clustered_rate([i % 4 > 0 for i in range(n)], [1] * n, [i % questions for i in range(n)], [0] * n)
    assert rate.n == n and 0 < rate.low < rate.value < rate.high < 1
    hits = rate.value * questions
    expected = beta.ppf(0.025, hits, questions - hits + 1), beta.ppf(0.975, hits + 1, questions - hits)
    assert (rate.low, rate.high) == pytest.approx(expected)
    assert spread(rate) > 0.6
