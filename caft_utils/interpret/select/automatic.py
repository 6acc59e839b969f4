"""Automatic selection of the directions whose explanation is relevant to a concept, with reasons.

The paper selects SAE latents with a relevance of at least 70, and components with a relevance of at least 90
on either side (arXiv 2507.16795, appendix C). No function here takes questions, answers, a model or a task,
so the evaluation cannot leak into the selection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isnan
from pathlib import Path
from typing import Any, Literal

from caft_utils.arguments import checked
from caft_utils.features import FeatureKey, Selection
from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.score import Score
from caft_utils.interpret.select.concepts import Concept
from caft_utils.interpret.select.relevance import RelevanceFunction, WordRelevance
from caft_utils.store import write_atomically
from caft_utils.text_files import read_json

Code = Literal[
    "selected", "judge_failed", "below_threshold", "no_score", "score_not_above_minimum", "layer_full"
]


@dataclass(frozen=True)
class Reason:
    """Why a feature was or was not selected by an explanation: `code` for programs, `why` for readers.

    by: the explainer. relevance: 0 to 100, None where the relevance function failed. score: None where there
        is none.
    """

    layer: int
    index: int
    side: str
    explanation: str
    by: str
    relevance: float | None
    score: float | None
    code: Code
    why: str

    @property
    def selected(self) -> bool:
        return self.code == "selected"


@dataclass(frozen=True)
class AutomaticSelection:
    """The selected features, and a reason for each explanation.

    selection: each feature is named by its most relevant explanation.
    reasons: one for each explanation.
    about: the concept, the relevance function and the thresholds.
    """

    selection: Selection
    reasons: list[Reason]
    about: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        features = {(reason.layer, reason.index) for reason in self.reasons}
        return (
            f"AutomaticSelection({dict(self.selection)}: {len(self.selection.order)} of {len(features)} read)"
        )

    def save(self, path: str | Path) -> Path:
        """Write the selection as JSON, atomically."""
        content = {
            "selection": self.selection.to_json(),
            "reasons": [asdict(reason) for reason in self.reasons],
            "about": self.about,
        }
        return write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> AutomaticSelection:
        """Read a file that `save` wrote. Raises ValueError if it is damaged or holds no selection."""
        try:
            content = read_json(path)
            selection = Selection.from_json(content["selection"])
            return cls(selection, [Reason(**reason) for reason in content["reasons"]], dict(content["about"]))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} holds no automatic selection that can be read ({error!r}); save it again"
            ) from None


@checked
def select_automatically(
    explanations: Mapping[FeatureKey, Explanation],
    concept: Concept,
    *,
    threshold: float | None = None,
    scores: Mapping[FeatureKey, Score | float] | None = None,
    min_score: float = 0.5,
    max_per_layer: int | None = None,
    relevance_fn: RelevanceFunction | None = None,
) -> AutomaticSelection:
    """Select every feature that has a relevant and reliable explanation, on either side.

    Args:
        threshold: smallest relevance; default: that of `relevance_fn`.
        scores: the reliability of each explanation. The lower end of a `Score`'s interval counts. For
            detection, a lower end above 0.5 means that the explanation is reliably better than chance. An
            explanation with no score, or with one that is not above `min_score`, is not used. Default: all
            are used.
        max_per_layer: largest number of features to select at a layer. The most relevant ones are kept.
        relevance_fn: default `WordRelevance()`.

    Returns:
        The selection, in order of layer and index. It is empty if no explanation reaches the threshold.
    """
    relevance_fn = relevance_fn or WordRelevance()
    threshold = relevance_fn.threshold if threshold is None else threshold
    relevances = relevance_fn(explanations, concept)
    reasons = []
    for key in sorted(explanations):
        relevance, (score, low) = relevances[key], _score_and_low((scores or {}).get(key))
        if relevance is None:
            code, why = "judge_failed", "the judge gave no number"
        elif relevance < threshold:
            code, why = "below_threshold", f"relevance {relevance:.0f} is below {threshold:g}"
        elif scores is not None and score is None:
            code, why = "no_score", "its explanation has no score"
        elif scores is not None and low <= min_score:
            code = "score_not_above_minimum"
            why = f"its explanation's score {score:.2f} is not surely above {min_score:g}"
        else:
            code, why = "selected", f"relevance {relevance:.0f}, at least {threshold:g}"
        layer, index, side = int(key[0]), int(key[1]), key[2]
        text, by = explanations[key].text, explanations[key].by
        reasons.append(Reason(layer, index, side, text, by, relevance, score, code, why))
    names, reasons = _limit_per_layer(reasons, max_per_layer)
    about = {
        "concept": asdict(concept),
        "relevance": relevance_fn.name,
        "threshold": threshold,
        "min_score": None if scores is None else min_score,
        "max_per_layer": max_per_layer,
    }
    return AutomaticSelection(Selection(sorted(names), names), reasons, about)


def _score_and_low(score: Score | float | None) -> tuple[float | None, float | None]:
    """Return the value of a score and the lower end of its interval, None for a score that is NaN."""
    if score is None:
        return None, None
    value, low = (score.value, score.low) if isinstance(score, Score) else (score, score)
    return (None, None) if isnan(low) else (float(value), float(low))


def _limit_per_layer(
    reasons: list[Reason], max_per_layer: int | None
) -> tuple[dict[tuple[int, int], str], list[Reason]]:
    """Return {(layer, index): most relevant explanation}, limited at each layer, and the updated reasons.

    A feature whose two sides are relevant counts once.
    """
    names: dict[tuple[int, int], str] = {}
    by_layer: dict[int, set[int]] = {}
    excluded: set[int] = set()
    chosen = [i for i, reason in enumerate(reasons) if reason.selected]
    for i in sorted(chosen, key=lambda i: -reasons[i].relevance):
        reason = reasons[i]
        indices = by_layer.setdefault(reason.layer, set())
        if reason.index not in indices and max_per_layer is not None and len(indices) >= max_per_layer:
            excluded.add(i)
            continue
        indices.add(reason.index)
        names.setdefault((reason.layer, reason.index), reason.explanation)
    why = f"{max_per_layer} others of its layer are at least as relevant"
    limited = [replace(r, code="layer_full", why=why) if i in excluded else r for i, r in enumerate(reasons)]
    return names, limited
