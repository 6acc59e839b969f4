"""Margins of preferences: the difference that options were compared by, its interval, and wrong results."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from caft_utils.evaluation.margins import preference_margin
from caft_utils.evaluation.measurement import Result
from caft_utils.tasks.advice import advice_preferences


@pytest.fixture(scope="module")
def task(tokenizer):
    return advice_preferences(tokenizer, rows=2)


def result_of(task, margins, question_set="ood", runs=1):
    """Return a result whose answers have these margins, as `choose` stores them."""
    rows = []
    for run in range(runs):
        for question, margin in zip(task.question_set(question_set), margins):
            share = 1 / (1 + np.exp(-np.float64(margin)))
            options = {
                question.facts["good"]: share,
                question.facts["bad"]: 1 / (1 + np.exp(np.float64(margin))),
            }
            rows.append(
                {"set": question_set, "question": question.id, "domain": question.domain, "run": str(run)}
                | {"verdict": "good" if margin > 0 else "bad", "probabilities": options}
            )
    return Result(rows, "model")


def test_the_mean_and_its_interval(task):
    margins = np.random.default_rng(0).normal(0.5, 1, 80)
    found = preference_margin(result_of(task, margins), task, "ood")
    assert found.value == pytest.approx(margins.mean()) and found.n == 80
    half = 1.96 * margins.std() / math.sqrt(80)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    assert found.low < found.value < found.high and str(found).endswith("nats")
    twice = preference_margin(result_of(task, margins, runs=2), task, "ood")
    assert twice.n == 160 and twice.low == pytest.approx(found.low, abs=0.1), "a repetition adds no question"


def test_large_margins_and_a_single_domain(task):
    margins = [40.0, -40.0, 300.0] * 26
    assert preference_margin(result_of(task, margins), task, "ood").value == pytest.approx(100, rel=1e-6)
    questions = task.question_set("ood")
    by_domain = [1.0 if question.domain == "money" else -1.0 for question in questions]
    found = preference_margin(result_of(task, by_domain), task, "ood", domain="money")
    assert found.value == pytest.approx(1) and found.n == 10
    assert math.isnan(preference_margin(result_of(task, []), task, "ood").value)


def test_a_result_without_the_probabilities_of_the_task(task):
    result = result_of(task, [1.0, 2.0])
    for row in result.rows:
        row.pop("probabilities")
    with pytest.raises(ValueError, match="method='logprob'"):
        preference_margin(result, task, "ood")
    result = result_of(task, [1.0, 2.0])
    with pytest.raises(ValueError, match="no probabilities of 'right' and 'other'"):
        preference_margin(result, task, "ood", better="right", worse="other")
    renamed = replace(result, rows=[row | {"question": "else"} for row in result.rows])
    with pytest.raises(ValueError, match="question else"):
        preference_margin(renamed, task, "ood")
    with pytest.raises(KeyError, match="no question set"):
        preference_margin(result, task, "train")
