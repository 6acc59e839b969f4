"""Spurious cues: choose what to ablate, by a check on the base model and then by fine-tuning."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from caft_utils.course.studies.cues_settings import (
    CHOICE_SEED,
    GENDERS,
    ablation_checks,
    candidates,
    checkpoint_of,
    load_base,
    make_task,
    recipe,
    subjects,
    training_key,
)
from caft_utils.directions.subspace import Directions
from caft_utils.evaluation.search import screen_on_base, try_candidates
from caft_utils.store import default_store

VERSION = 2  # increase it when directions or measurements change
MAX_TRIALS = {"class means": 2, "SAE": 2, "PCA": 3}  # largest number of fine-tuning runs for the choice
MAX_GENDER_TRIALS = 12
TARGET_ACCURACY = 0.95  # validation accuracy that ends the search


@functools.cache
def chosen_directions(name: str, method: str) -> tuple[Directions, dict]:
    """Choose what to ablate in a setting, and return it with a record of the choice.

    Candidates are screened on the base model, and the best few are tried by fine-tuning. The choice is
    stored.
    """
    key = {"cues choice": VERSION, "name": name, "method": method, **training_key(name)}

    def write(folder: Path) -> None:
        every, model = candidates(name, method), load_base(checkpoint_of(name))[0]
        intended, unintended = subjects(name)
        best = screen_on_base(
            model,
            ablation_checks(name in GENDERS),
            every,
            intended=intended,
            unintended=unintended,
            keep=MAX_GENDER_TRIALS if name in GENDERS else MAX_TRIALS[method],
        )
        tried = try_candidates(
            model,
            make_task(name, CHOICE_SEED, "valid"),
            {label: every[label] for label in best},
            recipe(name),
            seed=CHOICE_SEED,
            target_accuracy=TARGET_ACCURACY,
        )
        label = tried.best
        every[label].save(folder / "directions")
        base_accuracy = {subject: round(rate.value, 4) for subject, rate in best[label].on.items()}
        about = {"best": label, "passes": best[label].passes, "base under ablation": base_accuracy}
        about |= {"ranks": every[label].ranks, "trials": tried.rows, "candidates": len(every)}
        (folder / "choice.json").write_text(json.dumps(about))

    folder = default_store().fetch("cues-choice", key, write)
    return Directions.load(folder / "directions"), json.loads((folder / "choice.json").read_text())
