"""A rate with an interval that knows its clusters.

Answers to one question resemble each other, and so do answers of models trained with one seed. Counting them
as independent makes intervals far too narrow. The pigeonhole bootstrap (Owen 2007, arXiv 0712.1111) draws
questions and seeds, both with replacement, and gives cell (q, s) the weight w_q * v_s:

    rate* = sum_qs w_q v_s hits_qs / sum_qs w_q v_s trials_qs,    w ~ multinomial(Q), v ~ multinomial(S).

The interval is that of the quantiles of rate*. It errs on the wide side. With one seed only questions are
drawn.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rate:
    """A share in 0..1 of `n` trials, with its interval; NaN where n is 0."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def clustered_rate(
    hits: Sequence[float],
    trials: Sequence[float],
    question: Sequence[Hashable],
    seed: Sequence[Hashable],
    *,
    draws: int = 2000,
    level: float = 0.95,
    rng: int = 0,
) -> Rate:
    """sum(hits) / sum(trials) with a two-way bootstrap interval.

    Args:
        hits, trials: one entry an answer (1 or 0 of 1), or a count for several answers together.
        question, seed: the clusters to which each entry belongs.
        draws, level, rng: of the bootstrap; the same arguments give the same interval.

    If all clusters agree (nothing or everything is a hit) the bootstrap has no spread; the open end then is
    that of the exact binomial interval with the number of questions for its sample size, the widest that
    clusters allow.
    """
    hits, trials = np.asarray(hits, dtype=float), np.asarray(trials, dtype=float)
    if not len(hits) == len(trials) == len(question) == len(seed):
        lengths = [len(values) for values in (hits, trials, question, seed)]
        raise ValueError(f"hits, trials, question and seed must have one length, got {lengths}")
    if (hits < 0).any() or (hits > trials).any():
        raise ValueError("each entry needs 0 <= hits <= trials")
    total = trials.sum()
    if total == 0:
        return Rate(float("nan"), float("nan"), float("nan"), 0)
    kept = trials > 0
    rows, row = _numbered([q for q, k in zip(question, kept) if k])
    columns, column = _numbered([s for s, k in zip(seed, kept) if k])
    table = np.zeros((2, rows, columns))
    np.add.at(table, (0, row, column), hits[kept])
    np.add.at(table, (1, row, column), trials[kept])

    value, tail = hits.sum() / total, (1 - level) / 2
    if value in (0, 1):
        reach = 1 - tail ** (1 / rows)
        low, high = (0, reach) if value == 0 else (1 - reach, 1)
    else:
        generator = np.random.default_rng(rng)
        w = generator.multinomial(rows, np.full(rows, 1 / rows), size=draws)
        v = generator.multinomial(columns, np.full(columns, 1 / columns), size=draws)
        above, below = ((w @ counts * v).sum(1) for counts in table)
        drawn = above[below > 0] / below[below > 0]
        low, high = np.quantile(drawn, [tail, 1 - tail])
    return Rate(float(value), float(low), float(high), int(total))


def _numbered(labels: Sequence[Hashable]) -> tuple[int, np.ndarray]:
    """How many different labels there are, and the number of each entry's."""
    numbers: dict[Hashable, int] = {}
    places = np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=int)
    return len(numbers), places
