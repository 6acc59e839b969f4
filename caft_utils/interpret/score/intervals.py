"""A score of an explanation, with the interval that a bootstrap over rows of text gives it.

Windows from one row of text resemble each other, and fuzzing shows one window several times, so rows are
what is drawn, with replacement: row r gets the weight w_r of a multinomial, and every window of it counts
w_r times.

    AUROC* = sum_pn w_p w_n [s_p > s_n] / sum_pn w_p w_n      (p active, n not; a tie counts one half)

The interval is that of the 2.5 % and 97.5 % quantiles. Replies that could not be read are left out of the
value and reported as the share `failures`: a score that forgets them looks better the worse its judge is.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

DRAWS = 1000
TAIL = 0.025
NAN = float("nan")


@dataclass(frozen=True)
class Score:
    """How well an explanation predicts what a direction does.

    value: an AUROC (0.5: no better than chance) unless the score says otherwise. low, high: 95 % interval.
    n: windows (or prompts) that counted. failures: share of replies that could not be read, 0 to 1; they do
        not count.
    extra: further figures, by name.

    The value is NaN where nothing was left to compare.
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


def ranked(
    name: str,
    values: Sequence[float | None],
    active: Sequence[bool],
    rows: Sequence[Hashable],
    **extra: float,
) -> Score:
    """AUROC with which `values` tell active windows from the others.

    If they tell them apart without an error the bootstrap has no spread; the open end is then that of the
    exact binomial interval of as many trials as the smaller class has rows.
    """
    kept, failures = _read(values)
    active = np.asarray(active, dtype=bool)[kept]
    numbers, rows = np.asarray([values[i] for i in kept], dtype=float), [rows[i] for i in kept]
    if not active.any() or active.all():
        return Score(name, NAN, NAN, NAN, len(kept), failures, extra)
    above = numbers[active][:, None] - numbers[~active][None]
    wins = (np.sign(above) + 1) / 2
    value = float(wins.mean())
    unit = _numbered(rows)
    if value in (0.0, 1.0):
        smaller = min(len(set(unit[active])), len(set(unit[~active])))
        reach = 1 - TAIL ** (1 / smaller)
        low, high = (0.0, reach) if value == 0 else (1 - reach, 1.0)
    else:
        weight = _weights(unit)
        p, n = weight[:, active], weight[:, ~active]
        pairs = p.sum(1) * n.sum(1)
        drawn = ((p @ wins) * n).sum(1)[pairs > 0] / pairs[pairs > 0]
        low, high = np.quantile(drawn, [TAIL, 1 - TAIL])
    return Score(name, value, float(low), float(high), len(kept), failures, extra)


def correlated(
    name: str,
    predicted: Sequence[Sequence[float | None]],
    true: Sequence[Sequence[float]],
    rows: Sequence[Hashable],
    **extra: float,
) -> Score:
    """Pearson's r over the tokens of all windows together; NaN where one side does not vary."""
    count, failed, sums, units = 0, 0, [], []
    for guesses, values, row in zip(predicted, true, rows):
        kept, _ = _read(guesses)
        count, failed = count + len(guesses), failed + len(guesses) - len(kept)
        x, y = (np.asarray([side[i] for i in kept], dtype=float) for side in (guesses, values))
        if len(kept):
            sums.append([len(kept), x.sum(), y.sum(), x @ y, x @ x, y @ y])
            units.append(row)
    failures = failed / count if count else 0.0
    if not sums:
        return Score(name, NAN, NAN, NAN, 0, failures, extra)
    table, unit = np.asarray(sums), _numbered(units)
    (value,) = _pearson(table.sum(0)[None])
    drawn = _pearson(_weights(unit) @ table)
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [TAIL, 1 - TAIL]) if np.isfinite(value) and len(drawn) else (NAN, NAN)
    return Score(name, float(value), float(low), float(high), len(sums), failures, extra)


def averaged(name: str, values: Sequence[float | None], **extra: float) -> Score:
    """Mean of independent values, one a prompt."""
    kept, failures = _read(values)
    if not kept:
        return Score(name, NAN, NAN, NAN, 0, failures, extra)
    numbers = np.asarray([values[i] for i in kept], dtype=float)
    drawn = _weights(np.arange(len(kept))) @ numbers / len(kept)
    low, high = np.quantile(drawn, [TAIL, 1 - TAIL])
    return Score(name, float(numbers.mean()), float(low), float(high), len(kept), failures, extra)


def _read(values: Sequence[float | None]) -> tuple[list[int], float]:
    """Places of the values that are numbers, and the share of the others."""
    kept = [i for i, value in enumerate(values) if value is not None and math.isfinite(value)]
    return kept, 1 - len(kept) / len(values) if len(values) else 0.0


def _numbered(labels: Sequence[Hashable]) -> Int[np.ndarray, " n"]:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=int)


def _weights(unit: Int[np.ndarray, " n"]) -> Float[np.ndarray, "draws n"]:
    """How often each item counts in each draw of as many units as there are."""
    units = int(unit.max()) + 1
    drawn = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), size=DRAWS)
    return drawn[:, unit].astype(float)


def _pearson(sums: Float[np.ndarray, "draws 6"]) -> Float[np.ndarray, " draws"]:
    """r from n, sum x, sum y, sum xy, sum xx, sum yy."""
    n, x, y, xy, xx, yy = sums.T
    spread = (n * xx - x * x) * (n * yy - y * y)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(spread > 1e-12 * n**4, (n * xy - x * y) / np.sqrt(spread), NAN)
    return np.clip(r, -1, 1)
