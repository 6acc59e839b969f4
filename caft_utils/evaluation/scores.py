"""Compute scores with bootstrap intervals: AUROC, correlation and mean. Whole rows of text are the units.

Windows from one row of text resemble each other, and fuzzing shows one window several times, so the bootstrap
draws rows with replacement. Row r gets a multinomial weight w_r, and each of its windows counts w_r times:

    AUROC* = sum_pn w_p w_n [s_p > s_n] / sum_pn w_p w_n      (p active, n not; a tie counts one half)

The interval is given by the 2.5 % and 97.5 % quantiles. Unreadable replies are left out of the value, and
their share is reported as `failures`, because a judge could otherwise raise its score with unreadable
replies.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from caft_utils.evaluation.bootstrap import (
    cluster_index,
    exact_binomial_interval,
    quantile_interval,
    resample_counts,
)

DRAWS = 1000
TAIL = 0.025
NAN = float("nan")


@dataclass(frozen=True)
class Score:
    """A score with its 95 % interval, for example how well an explanation predicts what a direction does.

    value: an AUROC (0.5 is chance) unless the scorer says otherwise; NaN if there was nothing to compare.
    low, high: 95 % interval.
    n: number of windows (or prompts) that counted.
    failures: share of unreadable replies, 0 to 1; they do not count.
    extra: further figures by name.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    failures: float = 0.0
    extra: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        failed = f", {100 * self.failures:.0f} % unreadable" if self.failures else ""
        return f"{self.name} {self.value:.2f} [{self.low:.2f}, {self.high:.2f}] of {self.n}{failed}"


def auroc_score(
    name: str,
    values: Sequence[float | None],
    active: Sequence[bool],
    rows: Sequence[Hashable],
    **extra: float,
) -> Score:
    """Return the AUROC with which `values` separate active windows from the others.

    If the classes are separated perfectly, the bootstrap has no spread. The open end is then taken from the
    exact binomial interval with as many trials as the smaller class has rows.

    Args:
        values: one for each window; None or NaN for an unreadable reply.
        rows: the row of text that each window comes from.
    """
    readable, failures = _readable(values)
    active = np.asarray(active, dtype=bool)[readable]
    numbers = np.asarray([values[i] for i in readable], dtype=float)
    if not active.any() or active.all():
        return Score(name, NAN, NAN, NAN, len(readable), failures, extra)
    wins = (np.sign(numbers[active][:, None] - numbers[~active][None]) + 1) / 2
    value = auroc(numbers, active)
    unit = cluster_index([rows[i] for i in readable])
    if value in (0.0, 1.0):
        smaller = min(len(set(unit[active])), len(set(unit[~active])))
        low, high = exact_binomial_interval(value, smaller, TAIL)
    else:
        weight = _weights(unit)
        p, n = weight[:, active], weight[:, ~active]
        pairs = p.sum(1) * n.sum(1)
        low, high = quantile_interval(((p @ wins) * n).sum(1)[pairs > 0] / pairs[pairs > 0], TAIL)
    return Score(name, value, low, high, len(readable), failures, extra)


def correlation_score(
    name: str,
    predicted: Sequence[Sequence[float | None]],
    true: Sequence[Sequence[float]],
    rows: Sequence[Hashable],
    **extra: float,
) -> Score:
    """Return Pearson's r over the tokens of all windows; NaN if one side is constant.

    Args:
        predicted, true: for each window, a value for each token.
        rows: the row of text that each window comes from.
    """
    if not all(map(math.isfinite, (value for values in true for value in values))):
        raise ValueError("the true values must be finite numbers; a judge's values may be NaN or None")
    count, failed, sums, units = 0, 0, [], []
    for guesses, values, row in zip(predicted, true, rows):
        readable, _ = _readable(guesses)
        count, failed = count + len(guesses), failed + len(guesses) - len(readable)
        x, y = (np.asarray([side[i] for i in readable], dtype=float) for side in (guesses, values))
        if len(readable):
            sums.append([len(readable), x.sum(), y.sum(), x @ y, x @ x, y @ y])
            units.append(row)
    failures = failed / count if count else 0.0
    if not sums:
        return Score(name, NAN, NAN, NAN, 0, failures, extra)
    table = np.asarray(sums)
    (value,) = _pearson(table.sum(0)[None])
    drawn = _pearson(_weights(cluster_index(units)) @ table)
    drawn = drawn[np.isfinite(drawn)]
    low, high = quantile_interval(drawn, TAIL) if np.isfinite(value) and len(drawn) else (NAN, NAN)
    return Score(name, float(value), low, high, len(sums), failures, extra)


def mean_score(name: str, values: Sequence[float | None], **extra: float) -> Score:
    """Return the mean of independent values, for example one for each prompt."""
    readable, failures = _readable(values)
    if not readable:
        return Score(name, NAN, NAN, NAN, 0, failures, extra)
    numbers = np.asarray([values[i] for i in readable], dtype=float)
    drawn = _weights(np.arange(len(readable))) @ numbers / len(readable)
    low, high = quantile_interval(drawn, TAIL)
    return Score(name, float(numbers.mean()), low, high, len(readable), failures, extra)


def auroc(values: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Return the area under the ROC curve of `values` for the positive entries; NaN if a class is empty.

    It is the Mann-Whitney statistic divided by the number of pairs, so a tie counts one half. Raises
    ValueError if a value is NaN.
    """
    from scipy.stats import rankdata

    _check_no_nan(values)
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return NAN
    return float((rankdata(values)[positive].sum() - n * (n + 1) / 2) / (n * m))


def spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Return Spearman's rank correlation; NaN if one side is constant. Raises ValueError for a NaN value."""
    from scipy.stats import rankdata

    _check_no_nan(x, y)
    a, b = rankdata(x), rankdata(y)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else NAN


def _check_no_nan(*sides: Float[np.ndarray, " n"]) -> None:
    """Raise ValueError if a value is NaN, because NaN has no rank. Infinite values have one."""
    for side in sides:
        if where := np.flatnonzero(np.isnan(side)).tolist():
            raise ValueError(f"values {where[:5]} are NaN; leave these entries out and report how many")


def _readable(values: Sequence[float | None]) -> tuple[list[int], float]:
    """Return the indices of the values that are finite numbers, and the share of the others."""
    places = [i for i, value in enumerate(values) if value is not None and math.isfinite(value)]
    return places, 1 - len(places) / len(values) if len(values) else 0.0


def _weights(unit: Int[np.ndarray, " n"]) -> Float[np.ndarray, "draws n"]:
    """Return how often each item counts in each bootstrap draw of its units."""
    (drawn,) = resample_counts(int(unit.max()) + 1, draws=DRAWS)
    return drawn[:, unit].astype(float)


def _pearson(sums: Float[np.ndarray, "draws 6"]) -> Float[np.ndarray, " draws"]:
    """Return r from n, sum x, sum y, sum xy, sum xx, sum yy."""
    n, x, y, xy, xx, yy = sums.T
    spread = (n * xx - x * x) * (n * yy - y * y)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(spread > 1e-12 * n**4, (n * xy - x * y) / np.sqrt(spread), NAN)
    return np.clip(r, -1, 1)
