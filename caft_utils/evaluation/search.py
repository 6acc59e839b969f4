"""Choosing among sets of directions on a validation split: which to ablate, at which layers, how many.

    1. `nested`: of an order of importance, the first n at one layer, at another, at both ...
    2. `screen`: the pre-check of each in the base model, which costs a few forward passes and no training.
    3. `trials`: a fine-tuning under each of the few best, asked the questions of the VALIDATION split.

The test split must take no part: give `trials` a task made with split="valid".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from caft_utils.evaluation.ablation_check import AblationCheck, letter_accuracy
from caft_utils.evaluation.measurement import measure
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning.run import finetune
from caft_utils.interventions import ablate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.chats import Chats
    from caft_utils.directions.subspace import Directions
    from caft_utils.store import Store
    from caft_utils.tasks.task import Task

Rows = dict[int, list[int]]  # {layer: indices}


def prefix_subsets(
    order: Sequence[tuple[int, int]], sites: Sequence[Sequence[int]], sizes: Sequence[int]
) -> dict[str, Rows]:
    """The first n (layer, index) of an order, most important first, that lie at some of the sites.

    Sets that come out equal are given once, under the first name.
    """
    found: dict[str, Rows] = {}
    for layers in sites:
        there = [(layer, index) for layer, index in order if layer in layers]
        for size in sizes:
            rows: Rows = {}
            for layer, index in there[:size]:
                rows.setdefault(layer, []).append(index)
            if rows and rows not in found.values():
                found[f"{min(size, len(there))} at {', '.join(map(str, sorted(rows)))}"] = rows
    return found


def screen_on_base(
    model: PreTrainedModel,
    candidates: Mapping[str, Directions],
    chats: Mapping[str, Chats],
    *,
    intended: str,
    unintended: str,
    keep: int = 4,
    near: float = 0.1,
    holds: float = 0.9,
) -> dict[str, AblationCheck]:
    """The `keep` candidates that do best in the pre-check, best first.

    Those that pass come first, the smaller rank before the larger; then the others, by how far they are from
    passing. Of the unintended subject more counts than of the intended one, which may recover in training.
    """
    both = {name: chats[name] for name in (intended, unintended)}
    off = {name: letter_accuracy(model, rows) for name, rows in both.items()}
    found: dict[str, AblationCheck] = {}
    rank = {label: sum(directions.ranks.values()) for label, directions in candidates.items()}
    for label in sorted(candidates, key=rank.__getitem__):
        if sum(check.passes for check in found.values()) == keep:
            break  # larger ones would come after these
        with ablate(candidates[label]).on(model):
            on = {name: letter_accuracy(model, rows) for name, rows in both.items()}
        found[label] = AblationCheck(on, off, intended, unintended, near, holds)

    def place(label: str) -> tuple[bool, float]:
        check = found[label]
        left = max(0.0, abs(check.on[unintended].value - 0.5) - near)
        lost = max(0.0, holds * off[intended].value - check.on[intended].value)
        return not check.passes, rank[label] if check.passes else left + 0.5 * lost

    return {label: found[label] for label in sorted(found, key=place)[:keep]}


@dataclass(frozen=True)
class CandidateTrials:
    """Validation accuracies of each candidate: rows with name, ood and task; `best` is a name or None."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    least: float = 0.95

    @property
    def best(self) -> str | None:
        """The highest "ood" accuracy among those that do the task; where none does, the highest sum."""
        able = [row for row in self.rows if row["task"] >= self.least]
        key = (lambda row: row["ood"]) if able else (lambda row: row["ood"] + row["task"])
        return max(able or self.rows, key=key)["name"] if self.rows else None


def try_candidates(
    model: PreTrainedModel,
    candidates: Mapping[str, Directions],
    task: Task,
    config: FinetuneConfig | None = None,
    *,
    seed: int = 0,
    enough: float = 0.97,
    least: float = 0.95,
    store: Store | None = None,
) -> CandidateTrials:
    """Fine-tune under each candidate, in the order given, and measure on `task`, hooks off.

    Args:
        task: made with split="valid". enough: an "ood" accuracy with which the search ends.
        least: "task" accuracy that a candidate must have to be preferred.
    """
    rows: list[dict[str, Any]] = []
    for name, directions in candidates.items():
        tuned = finetune(model, task.train, config, during=ablate(directions), seed=seed, store=store)
        result = measure(tuned, task, temperature=0, batch_size=128, store=store)
        row = {
            "name": name,
            "ood": result.ood_accuracy().value,
            "task": result.task_score().value,
            "ranks": directions.ranks,
        }
        rows.append(row)
        if row["ood"] >= enough and row["task"] >= least:
            break
    return CandidateTrials(rows, least)
