"""Spurious cues: fine-tune in every setting with every method and seed, and ask the test questions.

Each cell (setting, method, seed) is stored as soon as it is measured, so a killed run resumes where it
stopped. A cell that trains a model takes about 15 s on one core.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from caft_utils import ablate, at_step, finetune, measure
from caft_utils.course.grid import Grid, run_grid
from caft_utils.course.studies.cues_choice import VERSION, chosen_directions
from caft_utils.course.studies.cues_settings import (
    GENDERS,
    MODEL,
    NAMES,
    PAPER,
    SNAPSHOTS,
    autoencoders,
    checkpoint_of,
    fine_tuned,
    load_base,
    make_task,
    ranked_latents,
    recipe,
    training_key,
)
from caft_utils.course.studies.persona import estimate
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.directions.subspace import Directions
from caft_utils.evaluation.measurement import Result
from caft_utils.saes.latents import sae_directions

# field of the record -> rate of the task
RATES = {"ood_accuracy": "ood_accuracy", "flipped_accuracy": "cue_accuracy", "task_score": "task_accuracy"}
MAIN = ("plain", "SAE", "SAE, hooks on", "SAE, test only", "PCA")
LABELLED = ("PCA by labels", "PCA by labels, hooks on")  # gender only: tests whether a better order helps
BASELINES = ("random directions", "random latents of the top 100", "top latents, not read")
BASELINES += ("no cue in training", "PCA, hooks on", "class means")
BASELINES += tuple(f"plain, step {step}" for step in SNAPSHOTS)
RHOS = (0.5, 0.75, 0.9, 0.99)  # share of training rows that follow the cue; 1 is the grid itself
SWEPT = ("sentiment* | sports", "gender")
SWEEP = tuple(f"rho {rho} {kind}" for rho in RHOS for kind in ("plain", "SAE"))
CONDITIONS = (*MAIN, *LABELLED, *BASELINES, *SWEEP)
CHOOSING = ("SAE", "PCA", "PCA by labels", "class means")  # methods that choose directions on validation


def cue_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    part: str = "all",
    settings: Sequence[str] | None = None,
) -> list[Row]:
    """Measure the grid of settings and methods and return a row per setting and condition, seeds merged.

    part: "main" leaves out the baselines, the sweep of rho and the settings that the paper does not have;
    "stored" measures nothing and returns the cells that were measured before. settings: names of the
    settings to measure, for example "gender"; None: all.

    Raises:
        ValueError: the model is not the cues checkpoint. A setting chooses its checkpoint itself.
    """
    if model != MODEL:
        raise ValueError(f"the settings of spurious cues are those of {MODEL!r}; got {model!r}")
    if part not in ("all", "main", "stored"):
        raise ValueError(f"part must be 'all', 'main' or 'stored', got {part!r}")
    methods = chosen_conditions(conditions, CONDITIONS)
    names = chosen_conditions(None if settings is None else tuple(settings), (*NAMES, *GENDERS))
    wanted = [cell for cell in cells(seeds, part) if cell[1] in methods and cell[0] in names]
    grid = run_grid(wanted, measured_cell, key=cell_key, skip_missing=part == "stored")
    print(f"{len(grid.results)} cells, {grid.total_seconds / 60:.0f} minutes of measuring in all runs")
    rows = _merged(grid)
    measured = {(row["condition"], row["setting"]) for row in rows}
    for method in CHOOSING:
        for name in names:
            if (method, name) in measured:
                facts = {"model": checkpoint_of(name), "setting": name, "condition": f"choice, {method}"}
                rows.append(facts | chosen_directions(name, method)[1])
    return rows


def cells(seeds: Sequence[int], part: str = "all") -> list[tuple[str, str, int]]:
    """Return (setting, method, seed) of the whole study, the most important first.

    "main" ends after the paper's 16 settings and gender.
    """
    main = (*PAPER, *GENDERS)
    out = [(name, method, seed) for seed in seeds for method in MAIN for name in main]
    if part == "main":
        return out
    out += [(name, method, seed) for seed in seeds for method in LABELLED for name in GENDERS]
    compared = (*PAPER[:8], *GENDERS)  # as in the paper
    out += [(name, method, seed) for seed in seeds for method in BASELINES for name in compared]
    swept = [(name, method) for name in SWEPT for method in SWEEP]
    out += [(*one, seed) for seed in seeds for one in swept]
    others = [name for name in NAMES if name not in PAPER]
    out += [(name, method, seed) for seed in seeds for method in ("plain", "SAE", "PCA") for name in others]
    return out + [(name, method, seed) for seed in seeds for method in BASELINES for name in PAPER[8:]]


def cell_key(name: str, method: str, seed: int) -> dict:
    """Return everything that a cell depends on besides its name."""
    return {"study": "cues", "version": VERSION, **training_key(name)}


def measured_cell(name: str, method: str, seed: int) -> Result:
    """Fine-tune in a setting with a method and ask the questions of the test split."""
    model, rho, during = load_base(checkpoint_of(name))[0], 1.0, None
    if method.startswith("rho"):  # "rho 0.9 plain", "rho 0.9 SAE"
        _, share, method = method.split(" ", 2)
        rho = float(share)
    match method.split(", "):
        case ["plain"]:
            tuned = fine_tuned(name, seed, rho=rho)
        case ["plain", step]:
            tuned = at_step(fine_tuned(name, seed), model, int(step.removeprefix("step ")))
        case ["no cue in training"]:
            tuned = finetune(model, make_task(name, seed).control, recipe(name), seed=seed)
        case ["SAE", "test only"]:
            tuned, during = fine_tuned(name, seed), ablate(chosen_directions(name, "SAE")[0])
        case [("SAE" | "PCA" | "PCA by labels" | "class means") as kind, *on]:
            tuned = fine_tuned(name, seed, chosen_directions(name, kind)[0], rho)
            during = ablate(chosen_directions(name, kind)[0]) if on else None
        case _:
            tuned = fine_tuned(name, seed, control_directions(name, method, seed))
    return measure(tuned, make_task(name, seed), temperature=0, batch_size=128, during=during)


def control_directions(name: str, baseline: str, seed: int) -> Directions:
    """Return unread directions with the layers and ranks of the chosen latents, as a control.

    The top 100 latents of a layer are the first by attribution.
    """
    like = chosen_directions(name, "SAE")[0]
    if baseline == "random directions":
        return like.random_like(seed)
    rows: dict[int, list[int]] = {}
    for layer, rank in like.ranks.items():
        order = [i for at, i in ranked_latents(name) if at == layer]
        if baseline == "random latents of the top 100":
            order = random.Random(f"{name} {layer} {seed}").sample(order[:100], min(rank, len(order)))
        elif baseline != "top latents, not read":
            raise ValueError(f"unknown method {baseline!r}")
        rows[layer] = order[:rank]
    return sae_directions(autoencoders(checkpoint_of(name)), rows)


def _merged(grid: Grid) -> list[Row]:
    """Return one row per method and setting, sorted by method in the order measured."""
    seeds: dict[tuple, list[int]] = {}
    for name, method, seed in grid.results:
        seeds.setdefault((name, method), []).append(seed)
    by_method: dict[str, list[Row]] = {}
    for (name, method), result in grid.merged((0, 1)).items():
        row = {
            "model": checkpoint_of(name),
            "setting": name,
            "condition": method,
            "seeds": seeds[name, method],
        }
        row |= {field: estimate(result.rate(rate)) for field, rate in RATES.items()}
        by_method.setdefault(method, []).append(row)
    return [row for rows in by_method.values() for row in rows]
