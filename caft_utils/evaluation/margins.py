"""Measure how strongly a model prefers one answer to another: the margin of a preference, in nats.

`measure` with method="logprob" stores the probability of each option among the options of its question. The
log-ratio of two options is their difference in the quantity by which they were compared:

    margin = log p(better) - log p(worse),    in nats, or nats per token if the grader compares means.

A rate counts only the signs of margins, so it jumps where two answers are nearly equal. The margin also shows
how close a model is to preferring the other answer.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from caft_utils.evaluation.bootstrap import cluster_index, quantile_interval, resample_counts
from caft_utils.evaluation.measurement import Result
from caft_utils.tasks.task import Task

SMALLEST = 5e-324  # the smallest positive float; a probability below it was stored as 0


@dataclass(frozen=True)
class Margin:
    """The mean margin of `n` answers with its 95 % interval, in nats; NaN where n is 0."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}] nats"


def preference_margin(
    result: Result,
    task: Task,
    question_set: str,
    *,
    domain: str | None = None,
    better: str = "good",
    worse: str = "bad",
) -> Margin:
    """Return the mean of log p(better) - log p(worse), with an interval clustered by question and run.

    Args:
        result: measured on `task` with method="logprob".
        question_set: "task" or "ood". domain: only questions of this domain; None: all.
        better, worse: the facts of a question that hold the two answers, for example "right" and "other" of
            a choice task.

    Raises:
        KeyError: the task has no such question set.
        ValueError: the result has no probabilities of the task's answers.
    """
    asked = {question.id: question for question in task.question_set(question_set)}
    margins: list[float] = []
    questions: list[Hashable] = []
    runs: list[Hashable] = []
    for row in result.rows:
        if row["set"] != question_set or (domain is not None and row["domain"] != domain):
            continue
        options = row.get("probabilities") or {}
        facts = asked[row["question"]].facts if row["question"] in asked else {}
        if {facts.get(better), facts.get(worse)} - set(options):
            raise ValueError(
                f"the result has no probabilities of {better!r} and {worse!r} for question "
                f"{row['question']}; measure the same task with method='logprob'"
            )
        chances = (max(options[facts[name]], SMALLEST) for name in (better, worse))
        margins.append(math.log(next(chances)) - math.log(next(chances)))
        questions.append(row["question"])
        runs.append(row["run"])
    return _clustered_mean(margins, questions, runs)


def _clustered_mean(
    values: Sequence[float], question: Sequence[Hashable], run: Sequence[Hashable], draws: int = 2000
) -> Margin:
    """Return the mean with the pigeonhole bootstrap's interval (see `bootstrap`)."""
    if not values:
        return Margin(math.nan, math.nan, math.nan, 0)
    row, column = cluster_index(question), cluster_index(run)
    table = np.zeros((2, row.max() + 1, column.max() + 1))
    np.add.at(table, (0, row, column), values)
    np.add.at(table, (1, row, column), 1)
    w, v = resample_counts(*table.shape[1:], draws=draws)
    sums, counts = ((w @ part * v).sum(1) for part in table)
    low, high = quantile_interval(sums[counts > 0] / counts[counts > 0], 0.025)
    return Margin(float(np.mean(values)), low, high, len(values))
