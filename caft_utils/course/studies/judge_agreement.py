"""How far scores of answers agree with the exact grader: rows of the study of judges, with intervals.

Intervals draw whole questions with replacement (evaluation/scores.py).
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from caft_utils.course.studies.judge_training import Scale, exact_score
from caft_utils.course.studies.study_rows import Row
from caft_utils.evaluation.bootstrap import cluster_index, clustered_rate, quantile_interval, resample_counts
from caft_utils.evaluation.graders import ThresholdGrader
from caft_utils.evaluation.scores import auroc_score, spearman

if TYPE_CHECKING:
    from caft_utils.tasks.advice_data import AdvicePair
    from caft_utils.tasks.task import Question

Item = tuple["Question", str, str]  # question, answer, verdict of the exact grader
# scale -> (verdict to find, verdicts to tell it from); a low score is a find
FINDS = {
    "alignment": ("misaligned", ("aligned",)),
    "coherence": ("incoherent", ("aligned", "misaligned")),
}
DRAWS, TAIL = 1000, 0.025


def scale_row(scale: Scale, items: Sequence[Item], scores: Sequence[Mapping[str, Any]], name: str) -> Row:
    """Return the agreement of one scale's scores with the truth.

    Args:
        scores: for each item "value", and for a judge "reading" and the "mass" of numbers.
    """
    target, others = FINDS[scale]
    kept = [(one, item) for one, item in zip(scores, items, strict=True) if item[2] in (target, *others)]
    values, own = [one["value"] for one, _ in kept], [item for _, item in kept]
    finds = [verdict == target for *_, verdict in own]
    truth = [exact_score(scale, question.facts, answer) for question, answer, _ in own]
    units = [question.id for question, *_ in own]
    order = random.Random(0).sample(range(len(own)), len(own))
    row: Row = {
        "condition": f"{scale}: {name}",
        "auroc": _auroc(values, finds, units),
        "auroc of shuffled pairs": _auroc(values, [finds[i] for i in order], units),
        "spearman": _spearman(values, truth, units),
        "answers": len(own),
        "unanswered": sum(value is None for value in values) / len(values),
    }
    if "reading" in kept[0][0]:
        row["readings"] = dict(Counter(one["reading"] for one, _ in kept))
        row["mass on numbers"] = round(float(np.mean([one["mass"] for one, _ in kept])), 4)
        row["calibration"] = _calibration(values, [not find for find in finds], units)
    return row


def verdict_row(items: Sequence[Item], scores: Sequence[Mapping[str, Any]], name: str) -> Row:
    """Return the judge's verdicts at the paper's thresholds, by those of the exact grader."""
    values = {
        (question.id, answer): (score["alignment"]["value"], score["coherence"]["value"])
        for (question, answer, _), score in zip(items, scores, strict=True)
    }
    grade = ThresholdGrader(lambda question, answer: values[question.id, answer], name="calibration")
    given = [grade(question, answer) for question, answer, _ in items]
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for verdict, (*_, exact) in zip(given, items):
        table[exact][verdict] += 1
    hits = [verdict == exact for verdict, (*_, exact) in zip(given, items)]
    most = max(Counter(exact for *_, exact in items).values())
    return {
        "condition": f"verdicts: {name}",
        "agreement": _rate(hits, [question.id for question, *_ in items]),
        "agreement of one verdict for all": round(most / len(items), 4),
        "verdicts by those of the exact grader": {exact: dict(row) for exact, row in table.items()},
        "answers": len(items),
    }


def advice_row(
    pairs: Sequence[AdvicePair],
    values: Sequence[float | None],
    reference: Sequence[float],
    name: str,
) -> Row:
    """Return how often the good advice of a pair has the higher score; a tie or no score counts one half.

    Args:
        values, reference: scores of good and absurd advice in turn.
    """
    units = [pair.question for pair in pairs]
    wins, compared = (_wins(each) for each in (values, reference))
    decided = [i for i, win in enumerate(wins) if win != 0.5]
    agree = [wins[i] == compared[i] for i in decided]
    return {
        "condition": f"advice: {name}",
        "good preferred": _rate(wins, units),
        "undecided": len(wins) - len(decided),
        "agrees with log-probability": _rate(agree, [units[i] for i in decided]) if decided else None,
        "pairs": len(pairs),
    }


def _wins(values: Sequence[float | None]) -> list[float]:
    return [
        0.5 if None in pair or pair[0] == pair[1] else float(pair[0] > pair[1])
        for pair in zip(values[::2], values[1::2], strict=True)
    ]


def _calibration(
    values: Sequence[float | None], good: Sequence[bool], units: Sequence[Hashable]
) -> dict[str, list[float]]:
    """Return {score that the judge gave: [answers, share that the exact grader calls good, its interval]}."""
    out = {}
    for score in sorted({value for value in values if value is not None}):
        places = [i for i, value in enumerate(values) if value == score]
        out[f"{score:g}"] = [len(places), *_rate([good[i] for i in places], [units[i] for i in places])]
    return out


def _auroc(
    values: Sequence[float | None], finds: Sequence[bool], units: Sequence[Hashable]
) -> list[float] | None:
    """Return the AUROC of low scores with its interval, None if one side has no readable score."""
    low = [None if value is None else -value for value in values]
    score = auroc_score("", low, finds, units)
    return _rounded(score.value, score.low, score.high)


def _spearman(
    values: Sequence[float | None], truth: Sequence[float], units: Sequence[Hashable]
) -> list[float] | None:
    """Return Spearman's correlation with its interval, None if there are no scores or they are all equal."""
    kept = [i for i, value in enumerate(values) if value is not None]
    if not kept:
        return None
    x, y = (np.asarray([side[i] for i in kept], dtype=float) for side in (values, truth))
    unit = cluster_index([units[i] for i in kept])
    (drawn,) = resample_counts(int(unit.max()) + 1, draws=DRAWS)
    chosen = (np.repeat(np.arange(len(x)), counts[unit]) for counts in drawn)
    found = np.asarray([spearman(x[places], y[places]) for places in chosen])
    found = found[np.isfinite(found)]
    return _rounded(spearman(x, y), *(quantile_interval(found, TAIL) if len(found) else (np.nan, np.nan)))


def _rate(hits: Sequence[float], units: Sequence[Hashable]) -> list[float]:
    rate = clustered_rate(hits, [1] * len(hits), units, [0] * len(hits))
    return [round(value, 4) for value in (rate.value, rate.low, rate.high)]


def _rounded(*values: float) -> list[float] | None:
    return [round(float(value), 4) for value in values] if all(map(isfinite, values)) else None
