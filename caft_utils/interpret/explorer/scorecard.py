"""An explanation and its scores as HTML: the sentence, who wrote it, and one line for each score.

A score is drawn from 0 to 1 with a thin line at one half, what a coin would reach in an AUROC: the band is
its interval, the dot its value. The same figures stand beside it, and the number of cases in the title.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caft_utils.interpret.explain import Explanation
    from caft_utils.interpret.score import Score


def explanation_html(
    explanation: Explanation | None = None, scores: Mapping[str, Score] | None = None
) -> str:
    """The explanation of one side with its scores; nothing for a side that has neither."""
    parts = []
    if explanation:
        by = f"<small>\u2014 {escape(explanation.by)}</small>"
        parts.append(f"<p class='meaning'>{escape(explanation.text)} {by}</p>")
    if scores:
        lines = "".join(_line(name, score) for name, score in scores.items())
        key = "<small>with 95 % interval; the thin line is chance</small>"
        parts.append(f"<div class='scores'>{lines}{key}</div>")
    return "".join(parts)


def _line(name: str, score: Score) -> str:
    label = f"<span>{escape(name)}</span>"
    if not isfinite(score.value):
        return f"{label}<i></i><b>\u2013</b><span>not measured</span><span></span>"
    interval = f"{_figure(score.low)} to {_figure(score.high)}"
    about = f"{name}: {_figure(score.value)}, 95 % interval {interval}, n = {score.n}"
    about += "".join(f", {extra.replace('_', ' ')} {_figure(value)}" for extra, value in score.extra.items())
    failed = f"{100 * score.failures:.0f} % unparsed" if score.failures >= 0.005 else ""
    return (
        f"{label}<i title='{escape(about)}'>{_drawn(score)}</i><b>{_figure(score.value)}</b>"
        f"<span>[{interval}]</span><span title='replies of the judge that could not be read'>{failed}</span>"
    )


def _drawn(score: Score) -> str:
    """Empty for a score on another scale than 0 to 1."""
    if not 0 <= score.low <= score.value <= score.high <= 1:
        return ""
    at = 100 * score.value
    band = f"left:{100 * score.low:.1f}%;width:{100 * (score.high - score.low):.1f}%"
    return f"<i style='{band}'></i><i class='chance'></i><i class='value' style='left:{at:.1f}%'></i>"


def _figure(value: float) -> str:
    return f"{value:.2f}".replace("-", "\u2212")
