"""Rates with clustered bootstrap intervals, and the resampling that rates and scores share.

Answers to one question resemble each other, and so do answers of models trained with one seed. Intervals that
treat them as independent are far too narrow. The pigeonhole bootstrap (Owen 2007, arXiv 0712.1111) draws
questions and seeds, both with replacement, and gives cell (q, s) the weight w_q * v_s:

    rate* = sum_qs w_q v_s hits_qs / sum_qs w_q v_s trials_qs,    w ~ multinomial(Q), v ~ multinomial(S).

The interval is given by the quantiles of rate*. It errs on the wide side. With a single seed, only questions
are resampled.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from caft_utils.arguments import number, whole
from caft_utils.formatting import format_rate

FEW = 5  # questions below which resampling them says nothing


@dataclass(frozen=True)
class Rate:
    """A share in 0..1 of `n` trials, with its interval; NaN where n is 0."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return format_rate(self.value, self.low, self.high)


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
    """Return sum(hits) / sum(trials) with a two-way bootstrap interval.

    Args:
        hits, trials: one entry for each answer (0 or 1 of 1), or the counts of several answers.
        question, seed: the clusters of each entry.
        draws, level, rng: number of draws, confidence level and seed of the bootstrap. Equal arguments give
        equal intervals.

    If all clusters agree (no hits, or only hits) the bootstrap has no spread, and with fewer than `FEW`
    questions it has too little. The interval is then the exact binomial one (Clopper and Pearson 1934) with
    the number of questions as the sample size, which is the most conservative choice.

    Raises:
        ValueError: the arguments differ in length, or an entry has more hits than trials.
    """
    draws, rng = whole("draws", draws, 1), whole("rng", rng, 0)
    level = number("level", level, above=0, below=1)
    hits, trials = np.asarray(hits, dtype=float), np.asarray(trials, dtype=float)
    if not len(hits) == len(trials) == len(question) == len(seed):
        lengths = [len(values) for values in (hits, trials, question, seed)]
        raise ValueError(f"hits, trials, question and seed must have one length, got {lengths}")
    if not ((hits >= 0) & (hits <= trials) & np.isfinite(trials)).all():  # also False for NaN
        raise ValueError("each entry needs finite numbers 0 <= hits <= trials")
    total = trials.sum()
    if total == 0:
        return Rate(float("nan"), float("nan"), float("nan"), 0)
    counted = trials > 0
    row = cluster_index([q for q, c in zip(question, counted) if c])
    column = cluster_index([s for s, c in zip(seed, counted) if c])
    rows, columns = row.max() + 1, column.max() + 1
    table = np.zeros((2, rows, columns))
    np.add.at(table, (0, row, column), hits[counted])
    np.add.at(table, (1, row, column), trials[counted])

    value, tail = hits.sum() / total, (1 - level) / 2
    if value in (0, 1) or rows < FEW:
        low, high = exact_binomial_interval(value, rows, tail)
    else:
        w, v = resample_counts(int(rows), int(columns), draws=draws, seed=rng)
        above, below = ((w @ counts * v).sum(1) for counts in table)
        low, high = quantile_interval(above[below > 0] / below[below > 0], tail)
    return Rate(float(value), low, high, int(total))


def cluster_index(labels: Sequence[Hashable]) -> Int[np.ndarray, " n"]:
    """Return a number for each entry's cluster, counting from 0 in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=int)


@lru_cache(maxsize=16)  # at most a few MB each
def resample_counts(*units: int, draws: int, seed: int = 0) -> tuple[Int[np.ndarray, "draws n"], ...]:
    """Return, for each number of units, how often each unit appears in `draws` samples with replacement.

    The arrays are cached and therefore read-only. All rates of a table use the same draws, and drawing takes
    most of the time.
    """
    generator = np.random.default_rng(seed)
    drawn = tuple(generator.multinomial(n, np.full(n, 1 / n), size=draws) for n in units)
    for counts in drawn:
        counts.setflags(write=False)
    return drawn


def exact_binomial_interval(value: float, units: int, tail: float) -> tuple[float, float]:
    """Return the exact binomial interval of a share `value` in `units` trials; hits need not be whole."""
    if value in (0, 1):  # in closed form
        reach = 1 - tail ** (1 / units)
        return (0.0, reach) if value == 0 else (1 - reach, 1.0)
    from scipy.stats import beta

    hits, misses = value * units, (1 - value) * units
    return float(beta.ppf(tail, hits, misses + 1)), float(beta.ppf(1 - tail, hits + 1, misses))


def quantile_interval(drawn: Float[np.ndarray, " draws"], tail: float) -> tuple[float, float]:
    """Return the `tail` and 1 - `tail` quantiles of the bootstrap draws."""
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
