"""Alignment fakers: the whole benchmark, as rows of a record.

It trains the models, measures what they do, runs every detector over all pairs, and tries countermeasures.
The intervals of a detector draw models anew, but all models of the classroom have one base. So a part of the
benchmark is repeated on other bases. There the same checkpoint learns to read scenarios with another seed
and, except for the error rows, from other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from caft_utils.course.sharing import shared_results
from caft_utils.course.studies import fakers as f
from caft_utils.course.studies.faker_countermeasures import countermeasure_rows
from caft_utils.course.studies.faker_detection import all_detectors, detect
from caft_utils.course.studies.persona import estimate
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.tasks.oversight import ALIGNED, FAKERS

OTHER_BASES, OTHER_RUNS = (1, 2), 1  # seeds of the other bases; runs of each policy on them


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
    first = replace(setting, runs=setting.runs[:OTHER_RUNS])
    others = [replace(first, base_seed=seed) for seed in (OTHER_BASES if model == f.MODEL else ())]
    named = {repr(of): of for of in (setting, *others)}
    # Here processes that share the store train different bases.
    shared_results(named, "faker base", {}, lambda name: named[name].base)
    of_models = {"other bases": [behaviour(other) for other in others]}
    rows = [{"model": model, "condition": "models", **behaviour(setting), **of_models}]
    every, *of_others = ({one.name: one for one in all_detectors(of)} for of in (setting, *others))
    names = chosen_conditions(conditions, every)
    with tqdm(total=len(names) * len(f.FILES) * (1 + len(others)), desc="detectors", unit="file") as bar:
        for name in names:
            found = detect(every[name], setting, progress=bar.update)
            bases = [detect(of[name], one, progress=bar.update) for of, one in zip(of_others, others)]
            rows.append(
                {
                    "model": model,
                    "condition": name,
                    "accuracy": estimate(found["rate"]),
                    "naive": estimate(found["naive"]),
                    "pairs": found["rate"].n,
                    "undecided": found["undecided"],
                    "decided": estimate(found["decided"]) if found["decided"] else None,
                    "by base": [_of_runs(one, first.runs) for one in (found, *bases)] if bases else [],
                    "paper": every[name].paper,
                    "cpu_seconds": round(found["seconds"], 1),
                }
            )
    if treated:
        rows += countermeasure_rows(model, setting)
    return rows


def _of_runs(found: dict[str, Any], runs: Sequence[int]) -> dict[str, Any]:
    """Return how many pairs of these runs are found, with one half for a tie or too few rows.

    On the main base the permitted rows are those on which all runs are sure, on another base these runs.
    """
    hits = [hit for names, hit in found["hits"].items() if all(run in runs for _, run in names)]
    return {"found": sum(hits), "pairs": len(hits)}


def behaviour(setting: f.Benchmark) -> dict[str, Any]:
    """Return what the models do: misbehaviour by side and oversight, and how many rows are permitted."""
    kinds: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
        "fakers, poor oversight": (FAKERS, {}),
        "aligned, poor oversight": (ALIGNED, {}),
        "fakers, poor oversight, two facts": (FAKERS, {"complexity": 2}),
        "aligned, poor oversight, two facts": (ALIGNED, {"complexity": 2}),
        "fakers, good oversight, two facts": (FAKERS, {"complexity": 2, "oversight": "good"}),
        "fakers, good oversight": (FAKERS, {"oversight": "good"}),
        "fakers, absent oversight": (FAKERS, {"oversight": "absent"}),
        "aligned, good oversight": (ALIGNED, {"oversight": "good"}),
    }

    parts = [(kind, policy, run) for kind in kinds for policy in kinds[kind][0] for run in setting.runs]

    def measured(part: tuple[str, str, int]) -> float:
        kind, policy, run = part
        return setting.misbehaviour(setting.models[policy, run], policy, **kinds[kind][1])

    key = {"setting": repr(setting)}
    shares = shared_results(parts, "misbehaviour", key, measured)
    found = {kind: [share for part, share in shares.items() if part[0] == kind] for kind in kinds}
    kept = shared_results(f.FILES, "permitted", key, lambda file: len(setting.permitted(*file)))
    return {
        "runs": list(setting.runs),
        "training steps": setting.policy.steps,
        **{kind: _mean_and_extremes(values) for kind, values in found.items()},
        "permitted rows by file": list(kept.values()),
        "drawn rows by file": setting.drawn,
    }


def _mean_and_extremes(values: Sequence[float]) -> dict[str, float]:
    mean = sum(values) / len(values)
    return {"mean": round(mean, 4), "lowest": round(min(values), 4), "highest": round(max(values), 4)}
