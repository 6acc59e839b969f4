"""Focus instruction tuning: focus accuracy by type and split, and FIT beside CAFT on the same spurious data.

Three settings, all on the checkpoint of the cues world:

    speakers    three labels, a spurious value in each text, splits iid, high, low, flipped, unseen values
    subjects    three spurious features, of which training shows two
    rho 0.5 ... 1    one core feature and one cue, which disagree in every question; the cue agrees with the
                label in a share rho of the training rows

Each cell (setting, condition, seed) is stored as soon as it is measured.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from caft_utils import FinetuneConfig, ablate, finetune, measure
from caft_utils.classroom.cues.focus import SPOKEN_FORMAT
from caft_utils.course.grid import Grid, run_grid
from caft_utils.course.studies.cues_choice import chosen_directions
from caft_utils.course.studies.focus_settings import (
    CAFT_SETTING,
    CUE,
    CUE_RECIPE,
    HIDDEN_RECIPE,
    MODEL,
    RECIPE,
    RHOS,
    cue_focus_rows,
    cue_rows,
    cue_task,
    feature_rows,
    feature_task,
    load_base,
    splits_of_speakers,
    spoken_rows,
    spoken_task,
)
from caft_utils.course.studies.persona import estimate
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.evaluation.bootstrap import clustered_rate
from caft_utils.evaluation.measurement import Result
from caft_utils.models import fingerprint
from caft_utils.tasks.focus import WORDING, agreement, set_name
from caft_utils.tasks.task import Task

VERSION = 1  # increase it when the same cell would give another result
SPEAKERS, SUBJECTS = "speakers", "subjects"
SHOTS = 4  # as in the paper
BASELINES = ("zero-shot", "few-shot", "SFT(y)", "SFT(y_focus)")
RIVALS = ("plain", "CAFT", "inoculation prompt", "low learning rate")
CONTROLS = ("random directions", "unrelated prompt")  # at rho = 1
CONDITIONS = ("FIT", *BASELINES, *RIVALS, *CONTROLS)
LOW_RATE = 1e-4  # a tenth of plain fine-tuning's
TOLD = {
    "FIT": "y_s of each row, the name of each feature, and six types of instructions",
    "plain": "nothing",
    "CAFT": "which latents are about the cue, read from the texts on which they are active",
    "inoculation prompt": "the word that names the cue, before each training row",
    "low learning rate": "nothing",
    "random directions": "nothing; as many random directions at the same layers",
    "unrelated prompt": "the name of a subject that does not occur, before each training row",
}


def focus_study_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    rival_seeds: int = 2,
    settings: Sequence[str] | None = None,
    stored: bool = False,
) -> list[Row]:
    """Measure the cells and return a row per setting and condition, seeds merged.

    Args:
        conditions: some of `CONDITIONS`. settings: some of `setting_names()`.
        rival_seeds: how many of the seeds measure more than FIT and SFT(y_focus) of the setting "speakers".
        stored: measure nothing and return what was measured before.

    Raises:
        ValueError: the model is not the cues checkpoint.
    """
    if model != MODEL:
        raise ValueError(f"focus instruction tuning is studied on {MODEL!r}; got {model!r}")
    methods = chosen_conditions(conditions, CONDITIONS)
    names = chosen_conditions(None if settings is None else tuple(settings), setting_names())
    wanted = [c for c in cells(seeds, rival_seeds) if c[0] in names and c[1] in methods]
    grid = run_grid(wanted, measured_cell, key=cell_key, skip_missing=stored)
    print(f"{len(grid.results)} cells, {grid.total_seconds / 60:.0f} minutes of measuring in all runs")
    return _merged(grid)


def setting_names() -> tuple[str, ...]:
    """Return the names of all settings."""
    return (SPEAKERS, SUBJECTS, *(f"rho {rho:g}" for rho in RHOS))


def cells(seeds: Sequence[int], rival_seeds: int) -> list[tuple[str, str, int]]:
    """Return (setting, condition, seed): all of the first seed, "speakers" of the others, then the rest."""
    swept = setting_names()[2:]

    def rest(seed: int) -> list[tuple[str, str, int]]:
        out = [(name, method, seed) for name in swept for method in ("FIT", *RIVALS)]
        out += [(swept[-1], method, seed) for method in CONTROLS]
        return [*out, (SPEAKERS, "SFT(y)", seed), (SUBJECTS, "FIT", seed)]

    main = [(SPEAKERS, method, seed) for seed in seeds for method in ("FIT", "SFT(y_focus)")]
    base = [(SPEAKERS, method, seeds[0]) for method in ("zero-shot", "few-shot")]  # the same for every seed
    rival = [rest(seed) for seed in seeds[:rival_seeds]]
    return [*main[:2], *sum(rival[:1], []), *base, *main[2:], *sum(rival[1:], [])]


def cell_key(name: str, method: str, seed: int) -> dict[str, Any]:
    """Return all that a cell depends on besides its name."""
    return {
        "study": "focus",
        "version": VERSION,
        "model": fingerprint(load_base()[0]),
        "task": _task(name).fingerprint,
        "recipe": _recipe(name, method).key(),
        "wording": WORDING.fingerprint,
    }


def measured_cell(name: str, method: str, seed: int) -> Result:
    """Fine-tune by a method and ask the questions of the setting."""
    base, task = load_base()[0], _task(name)
    if method in ("zero-shot", "few-shot"):
        return measure(base, spoken_task(shots=SHOTS) if method == "few-shot" else task, batch_size=128)
    if name in (SPEAKERS, SUBJECTS):
        rows = spoken_rows(method, seed) if name == SPEAKERS else feature_rows(seed)
        return measure(finetune(base, rows, _recipe(name, method), seed=seed), task, batch_size=128)
    return measure(trained_on_cue(float(name.removeprefix("rho ")), method, seed), task, batch_size=128)


def trained_on_cue(rho: float, method: str, seed: int) -> Any:
    """Return the model that a method makes of the rows in which the cue has correlation rho."""
    base, during, word = load_base()[0], None, "quiz"
    if method not in ("FIT", *RIVALS, *CONTROLS):
        raise ValueError(f"unknown method {method!r}")
    if method in ("CAFT", "random directions"):
        found = chosen_directions(CAFT_SETTING, "SAE")[0]
        during = ablate(found if method == "CAFT" else found.random_like(seed))
    if method in ("inoculation prompt", "unrelated prompt"):
        word = CUE if method == "inoculation prompt" else "verbs"
    rows = cue_focus_rows(rho, seed) if method == "FIT" else cue_rows(rho, seed, word)
    return finetune(base, rows, _recipe("rho", method), seed=seed, during=during)


def _recipe(name: str, method: str) -> FinetuneConfig:
    if name in (SPEAKERS, SUBJECTS):
        return RECIPE if method == "FIT" else HIDDEN_RECIPE
    if method == "FIT":
        return CUE_RECIPE
    plain = load_base()[0].caft_preset.finetune_config
    return replace(plain, lr=LOW_RATE) if method == "low learning rate" else plain


@functools.cache
def _task(name: str) -> Task:
    return {SPEAKERS: spoken_task, SUBJECTS: feature_task}.get(name, cue_task)()


def answered_by_cue(result: Result, split: str) -> list[float]:
    """Return how often the answer without focus text is y_s, with its interval.

    It is the focus accuracy under focus(S) of a model that is never shown an instruction.
    """
    examples, rows = splits_of_speakers()[split], []
    for row in result.rows:
        if row["set"] == set_name(split, "empty"):
            one = examples[int(row["question"].rsplit("/", 1)[1])]
            rows.append((row, row["answer"] == SPOKEN_FORMAT.answer.format(label=one.spurious_label)))
    hits, names, runs = (
        [hit for _, hit in rows],
        [r["question"] for r, _ in rows],
        [r["run"] for r, _ in rows],
    )
    return estimate(clustered_rate(hits, [1] * len(rows), names, runs))


def _merged(grid: Grid) -> list[Row]:
    """Return one row per setting and condition, in the order measured."""
    rows, shares = [], {name: round(agreement(of), 4) for name, of in splits_of_speakers().items()}
    for (name, method), result in grid.merged((0, 1)).items():
        there = [seed for setting, other, seed in grid.results if (setting, other) == (name, method)]
        row: Row = {"model": MODEL, "setting": name, "condition": method, "seeds": there}
        row["rates"] = {rate: estimate(result.rate(rate)) for rate in result.rates}
        if name == SPEAKERS:
            row["agreement"] = shares
            row["y_s without focus text"] = {split: answered_by_cue(result, split) for split in shares}
        elif name.startswith("rho"):
            row["told"] = TOLD[method]
        rows.append(row)
    return rows
