"""Scoring the scores: where the truth about a direction is known, does a score know a right explanation?

Every direction that tells some label of the world (its firing in a message predicts the label) is given the
explanation of that label, which is right, and those of other labels, which are wrong. A good score gives the
right one more; and over all pairs of a direction and a label it grows with how well the one knows the other:

    AUROC      of the score, right explanations against wrong ones
    Spearman   of the score and of the F1 with which the direction tells the label that is explained

On real models nobody has that F1, and ratings by people stand in for it (arXiv 2410.13928, section 4).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caft_utils.classroom.personas.labels import LabelledChats, knowledge, label_words, strongest
from caft_utils.evaluation.scores import auroc, spearman
from caft_utils.features import Features

Key = tuple[int, int, str]


@dataclass(frozen=True)
class LabelledDirection:
    """A direction (layer, index, side) with the label it tells best and its F1 with every label."""

    noun: str
    key: Key
    label: str
    f1: Mapping[str, float]


def known_directions(
    model, text: LabelledChats, features: Features, *, least: float = 0.6, per_label: int = 6
) -> list[LabelledDirection]:
    """Directions that tell a label with an F1 of at least `least`: of each label the best few, best first."""
    found: list[LabelledDirection] = []
    for layer in features.layers:
        values = strongest(model, text, layer, lambda h, layer=layer: features.values(layer, h))
        sides = {"+": values}
        if features.signed:
            sides["-"] = strongest(model, text, layer, lambda h, layer=layer: -features.values(layer, h))
        for side, side_values in sides.items():
            known = knowledge(side_values, text)
            for column, index in enumerate(features.indices(layer)):
                f1 = {label: float(of_label[column]) for label, of_label in known.items()}
                label = max(f1, key=f1.__getitem__)
                if f1[label] >= least:
                    found.append(LabelledDirection(features.noun, (layer, index, side), label, f1))
    found.sort(key=lambda one: -one.f1[one.label])
    taken: dict[str, int] = {}
    kept = []
    for one in found:
        taken[one.label] = taken.get(one.label, 0) + 1
        if taken[one.label] <= per_label:
            kept.append(one)
    return kept


def label_explanation(label: str, n: int = 24) -> str:
    """The explanation of a label in the style of explainers, from the words of the world that tell it."""
    words = ", ".join(f'"{word}"' for word in label_words(label, n=n))
    group, value = label.split(": ")
    return f"text of the {group} {value}, with words such as {words}"


def judged(
    known: Sequence[LabelledDirection],
    score: Callable[[str, LabelledDirection], Mapping[str, float]],
    *,
    wrong: int = 2,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows of one direction and one explanation each: the scores, whether it is right, and the true F1.

    Args:
        score: gives the scores of an explanation (by name) for a known direction.
        wrong: explanations of other labels for each direction, drawn from the labels that others are known
            for and that this one does not tell (F1 below half of its best).

    Raises:
        ValueError: there is no other label to draw from.
    """
    labels = sorted({one.label for one in known})
    rows = []
    for one in known:
        rng = random.Random(f"{seed} {one.key} {one.noun}")
        others = [label for label in labels if one.f1[label] < one.f1[one.label] / 2]
        if not others:
            raise ValueError(
                f"all directions are known for {labels}; a wrong explanation needs another label"
            )
        for label in [one.label, *rng.sample(others, min(wrong, len(others)))]:
            rows.append(
                {
                    "noun": one.noun,
                    "key": list(one.key),
                    "label": one.label,
                    "explained": label,
                    "right": label == one.label,
                    "f1": one.f1[label],
                    "scores": dict(score(label_explanation(label), one)),
                }
            )
    return rows


def validity(rows: Sequence[Mapping[str, Any]], *, draws: int = 1000, seed: int = 0) -> dict[str, dict]:
    """By score: {"auroc", "spearman": [value, low, high], "n"}; intervals draw whole directions anew.

    Pairs for which a score could not be computed (NaN) are left out of its figures, and `n` tells.
    """
    rng = np.random.default_rng(seed)
    out = {}
    for name in dict.fromkeys(name for row in rows for name in row["scores"]):
        kept = [row for row in rows if np.isfinite(row["scores"].get(name, np.nan))]
        value = np.array([row["scores"][name] for row in kept])
        right = np.array([row["right"] for row in kept])
        f1 = np.array([row["f1"] for row in kept])
        unit: dict[tuple, int] = {}
        owner = np.array([unit.setdefault((row["noun"], *row["key"]), len(unit)) for row in kept])
        members = [np.flatnonzero(owner == u) for u in range(len(unit))]
        drawn = []
        for _ in range(draws):
            some = np.concatenate([members[u] for u in rng.integers(len(unit), size=len(unit))])
            drawn.append((auroc(value[some], right[some]), spearman(value[some], f1[some])))
        low, high = np.nanquantile(np.array(drawn), [0.025, 0.975], axis=0)
        point = (auroc(value, right), spearman(value, f1))
        out[name] = {
            figure: [float(point[i]), float(low[i]), float(high[i])]
            for i, figure in enumerate(("auroc", "spearman"))
        } | {"n": len(kept)}
    return out
