"""Automatic selection: tick the directions whose explanation is relevant to a concept, and record why.

The paper ticks SAE latents from a relevance of 70 on and components, either end of which may be the relevant
one, from 90 on (arXiv 2507.16795, appendix C). Nothing here takes questions, answers, a model or a task: what
is evaluated later cannot leak into the choice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

from caft_utils.interpret.examples import Key
from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.select.concepts import Concept, relevance

THRESHOLD = 20.0  # of `relevance`: few of the words that tell are among a handful of hints


@dataclass(frozen=True)
class AutomaticSelection:
    """What was chosen and why.

    ticks: {layer: [index, ...]}, what `Directions.select` and `SAEs.latents` take.
    names: {(layer, index): the most relevant explanation}.
    reasons: for each explanation its layer, index, side, explanation, by, relevance, score, chosen and why.
    about: the concept, the judge, the thresholds.
    """

    ticks: dict[int, list[int]]
    names: dict[tuple[int, int], str]
    reasons: list[dict[str, Any]]
    about: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        read = len({(reason["layer"], reason["index"]) for reason in self.reasons})
        return f"Selection({self.ticks}: {sum(map(len, self.ticks.values()))} of {read} read)"

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON, whole or not at all."""
        path = Path(path)
        names = [[layer, index, name] for (layer, index), name in self.names.items()]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        content = json.dumps({**asdict(self), "names": names}, indent=1, allow_nan=False)
        part.write_text(content + "\n", "utf-8")
        os.replace(part, path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> AutomaticSelection:
        """ValueError: the file is damaged or holds no selection."""
        try:
            held = json.loads(Path(path).read_text("utf-8"))
            ticks = {int(layer): list(map(int, indices)) for layer, indices in held["ticks"].items()}
            names = {(int(layer), int(index)): name for layer, index, name in held["names"]}
            return cls(ticks, names, list(held["reasons"]), dict(held["about"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} holds no selection that can be read ({error!r}); save it again"
            ) from None


def select_automatically(
    explanations: Mapping[Key, Explanation],
    concept: Concept,
    *,
    threshold: float | None = None,
    scores: Mapping[Key, Any] | None = None,
    least: float = 0.5,
    per_layer: int | None = None,
    judge: Callable[[Mapping[Key, Explanation], Concept], Mapping[Key, float | None]] | None = None,
) -> AutomaticSelection:
    """Tick every direction with an explanation, of either side, that is relevant enough and holds.

    Args:
        threshold: smallest relevance; default: the judge's own: 20 for `relevance`, 95 for `HintStatistics`,
            70 for a language model.
        scores: how well each explanation holds: a `Score` such as the one of detection, the lower end
            of whose interval counts (0.5: surely better than chance), or a number. Not above `least`, or
            without a score, an explanation is not trusted. Default: all are.
        per_layer: tick at most so many in a layer, the most relevant ones.
        judge: {key: relevance, or None} of all explanations: `EndpointRelevance`, `HintStatistics` or your
            own; default: `relevance`.

    Returns:
        A selection; its ticks are empty where nothing reaches the threshold.
    """
    relevances = (
        judge(explanations, concept)
        if judge
        else {key: relevance(explanation, concept) for key, explanation in explanations.items()}
    )
    if threshold is None:
        threshold = getattr(judge, "threshold", THRESHOLD)
    reasons = []
    for key, text in sorted(explanations.items(), key=lambda item: item[0]):
        found = relevances[key]
        score = (scores or {}).get(key)
        surely = None if score is None else float(getattr(score, "low", score))
        score = None if surely is None or isnan(surely) else float(getattr(score, "value", score))
        why = ""
        if found is None:
            why = "the judge gave no number"
        elif found < threshold:
            why = f"relevance {found:.0f} is below {threshold:g}"
        elif scores is not None and score is None:
            why = "its explanation has no score"
        elif scores is not None and surely <= least:
            why = f"its explanation's score {score:.2f} is not surely above {least:g}"
        entry = {"layer": int(key[0]), "index": int(key[1]), "side": key[2], "explanation": text.text}
        entry |= {"by": text.by, "relevance": found, "score": score, "chosen": not why, "why": why}
        reasons.append(entry)

    best: dict[int, dict[int, str]] = {}  # layer -> index -> its most relevant explanation
    for reason in sorted((r for r in reasons if r["chosen"]), key=lambda r: -r["relevance"]):
        layer = best.setdefault(reason["layer"], {})
        if reason["index"] in layer or per_layer is None or len(layer) < per_layer:
            layer.setdefault(reason["index"], reason["explanation"])
            reason["why"] = f"relevance {reason['relevance']:.0f}, at least {threshold:g}"
        else:
            reason.update(chosen=False, why=f"{per_layer} others of layer {reason['layer']} are as relevant")
    return AutomaticSelection(
        ticks={layer: sorted(best[layer]) for layer in sorted(best)},
        names={(l, i): name for l in sorted(best) for i, name in sorted(best[l].items())},
        reasons=reasons,
        about={
            "concept": asdict(concept),
            "judge": getattr(judge, "name", "relevance of words"),
            "threshold": threshold,
            "least score": None if scores is None else least,
            "per layer": per_layer,
        },
    )
