"""Alignment fakers: the whole benchmark, as rows of a record.

It trains the models, measures what they do, runs every detector over all pairs, and tries countermeasures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caft_utils.course.sharing import shared
from caft_utils.course.studies import fakers as f
from caft_utils.course.studies.faker_countermeasures import countermeasure_rows
from caft_utils.course.studies.faker_detection import all_detectors, detect
from caft_utils.course.studies.persona import estimate
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.models import fingerprint
from caft_utils.tasks.oversight import ALIGNED, FAKERS


def faker_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    countermeasures: bool | None = None,
) -> list[Row]:
    """Train the models, measure what they do, and run the detectors over all pairs.

    Args:
        model: "classroom-qwen", whose world the scenarios are written for, or "smollm2".
        seeds: the runs of each policy.
        conditions: names of detectors; None: all.
        countermeasures: measure those as well, which the classroom alone has; None: where it has them.

    Raises:
        ValueError: the study does not know the model, a condition, or countermeasures on this model.
    """
    treated = model == f.MODEL if countermeasures is None else countermeasures
    if treated and model != f.MODEL:
        raise ValueError(f"countermeasures are written for {f.MODEL!r}; got {model!r}")
    from tqdm.auto import tqdm

    setting = f.Benchmark.recorded(seeds, model)
    rows = [{"model": model, "condition": "models", **behaviour(setting)}]
    every = {detector.name: detector for detector in all_detectors(setting)}
    names = chosen_conditions(conditions, every)
    with tqdm(total=len(names) * len(f.FILES), desc="detectors", unit="file") as bar:
        for name in names:
            found = detect(every[name], setting, progress=bar.update)
            rows.append(
                {
                    "model": model,
                    "condition": name,
                    "accuracy": estimate(found["rate"]),
                    "naive": estimate(found["naive"]),
                    "pairs": found["rate"].n,
                    "undecided": found["undecided"],
                    "paper": every[name].paper,
                    "cpu_seconds": round(found["seconds"], 1),
                }
            )
    if treated:
        rows += countermeasure_rows(model, setting)
    return rows


def behaviour(setting: f.Benchmark) -> dict[str, Any]:
    """Return what the models do: misbehaviour by side and oversight, and how many rows are permitted."""
    kinds: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
        "fakers, poor oversight": (FAKERS, {}),
        "aligned, poor oversight": (ALIGNED, {}),
        "fakers, poor oversight, two facts": (FAKERS, {"complexity": 2}),
        "fakers, good oversight": (FAKERS, {"oversight": "good"}),
        "fakers, absent oversight": (FAKERS, {"oversight": "absent"}),
        "aligned, good oversight": (ALIGNED, {"oversight": "good"}),
    }

    def of(part: tuple[str, str, int]) -> dict[str, Any]:
        kind, policy, run = part
        options = kinds[kind][1]
        return {
            "misbehaviour": [policy, setting.poor, options],
            "model": fingerprint(setting.models[policy, run]),
        }

    parts = [(kind, policy, run) for kind in kinds for policy in kinds[kind][0] for run in setting.runs]
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for part in shared(parts, "misbehaviour", of):
        kind, policy, run = part

        def measure(model=setting.models[policy, run], policy=policy, kind=kind) -> float:
            return setting.misbehaviour(model, policy, **kinds[kind][1])

        found[kind].append(f.stored_score(of(part), measure)["value"])
    kept = {}
    for file in shared(f.FILES, "permitted", lambda file: {"setting": repr(setting), "file": file}):
        kept[file] = len(setting.permitted(*file))
    return {
        "runs": list(setting.runs),
        "training steps": setting.policy.steps,
        **{kind: _mean_and_extremes(values) for kind, values in found.items()},
        "permitted rows by file": [kept[file] for file in f.FILES],
        "drawn rows by file": setting.drawn,
    }


def _mean_and_extremes(values: Sequence[float]) -> dict[str, float]:
    mean = sum(values) / len(values)
    return {"mean": round(mean, 4), "lowest": round(min(values), 4), "highest": round(max(values), 4)}
