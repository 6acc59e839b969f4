"""Measure whether scores of explanations agree with the truth in a world where the truth is known.

Some features detect a label of the world: their activation in a message predicts whether the message carries
the label. The explanation that describes this label is right for the feature, and explanations of other
labels are wrong. A valid score is higher for the right explanation. Over all pairs of a feature and a label,
it increases with the F1 of the feature as a detector of the label:

    AUROC      of the score, right explanations against wrong ones
    Spearman   correlation of the score with the F1 for the explained label

On real models this F1 is unknown, and human ratings take its place (arXiv 2410.13928, section 4).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from caft_utils.classroom.f1_detectors import best_f1_by_label, max_per_message
from caft_utils.classroom.message_labels import LabelledChats
from caft_utils.classroom.personas.labels import label_words
from caft_utils.evaluation.scores import auroc, spearman
from caft_utils.features import FeatureKey, Features
from caft_utils.models import fingerprint
from caft_utils.stored_results import fetch_json

if TYPE_CHECKING:
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give different directions


@dataclass(frozen=True)
class LabelledDirection:
    """A feature that detects a label.

    noun: "component" or "latent". key: (layer, index, side). label: the label that it detects best. f1:
        {label: best F1 as a detector of it}.
    """

    noun: str
    key: FeatureKey
    label: str
    f1: Mapping[str, float]


def labelled_directions(
    model,
    text: LabelledChats,
    features: Features,
    *,
    min_f1: float = 0.6,
    per_label: int = 6,
    store: Store | None = None,
) -> list[LabelledDirection]:
    """Return the features that detect a label with an F1 of at least `min_f1`, best first.

    Args:
        per_label: largest number of features for each label.
        store: where the result is cached; default: see `default_store`.
    """
    key = features.fingerprint and {
        "format": FORMAT,
        "model": fingerprint(model),
        "text": text.fingerprint,
        "features": features.fingerprint,
        "noun": features.kind,
        "signed": features.two_sided,
        "min_f1": min_f1,
        "per_label": per_label,
    }

    def compute() -> list[dict[str, Any]]:
        return [asdict(one) for one in _labelled_directions(model, text, features, min_f1, per_label)]

    stored = fetch_json("labelled_directions", key or None, compute, models=(model,), store=store)
    return [LabelledDirection(**{**one, "key": tuple(one["key"])}) for one in stored]


def _labelled_directions(
    model, text: LabelledChats, features: Features, min_f1: float, per_label: int
) -> list[LabelledDirection]:
    candidates: list[LabelledDirection] = []
    for layer in features.layers:
        read = max_per_message(model, text, layer, lambda h, layer=layer: features.values(layer, h))
        by_side = {"+": read}
        if features.two_sided:
            by_side["-"] = max_per_message(
                model, text, layer, lambda h, layer=layer: -features.values(layer, h)
            )
        for side, values in by_side.items():
            f1_by_label = best_f1_by_label(values, text)
            for column, index in enumerate(features.indices(layer)):
                f1 = {label: float(of_columns[column]) for label, of_columns in f1_by_label.items()}
                label = max(f1, key=f1.__getitem__)
                if f1[label] >= min_f1:
                    candidates.append(LabelledDirection(features.kind, (layer, index, side), label, f1))
    candidates.sort(key=lambda one: -one.f1[one.label])
    counts: dict[str, int] = {}
    out = []
    for one in candidates:
        counts[one.label] = counts.get(one.label, 0) + 1
        if counts[one.label] <= per_label:
            out.append(one)
    return out


def label_explanation(label: str, n: int = 24) -> str:
    """Return an explanation of a label in the style of an explainer, with the n most indicative words."""
    words = ", ".join(f'"{word}"' for word in label_words(label, n=n))
    group, value = label.split(": ")
    return f"text of the {group} {value}, with words such as {words}"


def score_explanations(
    directions: Sequence[LabelledDirection],
    score: Callable[[str, LabelledDirection], Mapping[str, float]],
    *,
    n_wrong: int = 2,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Score the right and some wrong explanations of each direction.

    Args:
        score: returns {name: score} of an explanation for a direction.
        n_wrong: number of wrong explanations per direction. They describe labels of other directions that
            this one does not detect (F1 below half of its best).

    Returns:
        A row for every direction and explanation: "noun", "key", "label", "explained" (the label described),
        "right", "f1" (for the explained label) and "scores".

    Raises:
        ValueError: a direction has no other label to draw a wrong explanation from.
    """
    labels = sorted({one.label for one in directions})
    rows = []
    for one in directions:
        rng = random.Random(f"{seed} {one.key} {one.noun}")
        others = [label for label in labels if one.f1[label] < one.f1[one.label] / 2]
        if not others:
            raise ValueError(
                f"all directions detect {labels}; a wrong explanation needs another label, "
                "so pass directions of several labels"
            )
        for label in [one.label, *rng.sample(others, min(n_wrong, len(others)))]:
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


def validity_of_scores(
    rows: Sequence[Mapping[str, Any]], *, draws: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return {score: {"auroc": [value, low, high], "spearman": [value, low, high], "n": pairs}}.

    Pairs whose score is NaN are left out of `n` and of the figures. The 95 % intervals come from a bootstrap
    that resamples whole directions.

    Args:
        rows: the result of `score_explanations`.
    """
    rng = np.random.default_rng(seed)
    out = {}
    for name in dict.fromkeys(name for row in rows for name in row["scores"]):
        scored = [row for row in rows if np.isfinite(row["scores"].get(name, np.nan))]
        value = np.array([row["scores"][name] for row in scored])
        right = np.array([row["right"] for row in scored])
        f1 = np.array([row["f1"] for row in scored])
        numbers: dict[tuple, int] = {}
        direction = np.array([numbers.setdefault((r["noun"], *r["key"]), len(numbers)) for r in scored])
        rows_of = [np.flatnonzero(direction == number) for number in range(len(numbers))]
        drawn = []
        for _ in range(draws):
            some = np.concatenate([rows_of[i] for i in rng.integers(len(numbers), size=len(numbers))])
            drawn.append((auroc(value[some], right[some]), spearman(value[some], f1[some])))
        low, high = np.nanquantile(np.array(drawn), [0.025, 0.975], axis=0)
        point = (auroc(value, right), spearman(value, f1))
        out[name] = {
            figure: [float(point[i]), float(low[i]), float(high[i])]
            for i, figure in enumerate(("auroc", "spearman"))
        } | {"n": len(scored)}
    return out
