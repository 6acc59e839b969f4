"""Choose directions on a validation split: which ones to ablate, at which layers, and how many.

    1. `prefix_subsets` makes candidates: the n most important features at one layer, at another, at both ...
    2. `screen_on_base` checks each on the base model, which takes a few forward passes and no training.
    3. `try_candidates` fine-tunes under the best few and measures them on the VALIDATION split.

The test split must not be used here: give `try_candidates` a task made with split="valid".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from caft_utils.arguments import checked
from caft_utils.evaluation.ablation_check import AblationCheck, letter_accuracy
from caft_utils.evaluation.measurement import measure
from caft_utils.features import Selection
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning.run import finetune
from caft_utils.interventions import ablate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.chats import Chats
    from caft_utils.directions.subspace import Directions
    from caft_utils.interventions.base import Intervention
    from caft_utils.store import Store
    from caft_utils.tasks.task import Task

    Operator = Callable[[Directions], Intervention]


def prefix_subsets(
    order: Sequence[tuple[int, int]], layer_sets: Sequence[Sequence[int]], sizes: Sequence[int]
) -> dict[str, Selection]:
    """Return the first n features of an order at each group of layers, by a name such as "4 at 0, 1".

    Equal selections appear once, under the first name.

    Args:
        order: (layer, index) pairs, the most important first.
        layer_sets: groups of layers. sizes: numbers of features n.
    """
    subsets: dict[str, Selection] = {}
    for layers in layer_sets:
        available = Selection(order).at(layers)
        for size in sizes:
            subset = available.first(size)
            if subset and subset not in subsets.values():
                subsets[f"{len(subset.order)} at {', '.join(map(str, subset))}"] = subset
    return subsets


@checked
def screen_on_base(
    model: PreTrainedModel,
    chats: Mapping[str, Chats],
    candidates: Mapping[str, Directions],
    *,
    intended: str,
    unintended: str,
    operator: Operator = ablate,
    keep: int = 4,
    chance_tolerance: float = 0.1,
    keep_ratio: float = 0.9,
    store: Store | None = None,
) -> dict[str, AblationCheck]:
    """Return the checks of the `keep` best candidates on the base model, best first.

    Candidates that pass come first, smaller ranks before larger ranks. The others follow by their distance
    from passing. The unintended subject counts twice as much in this distance as the intended one, because
    the intended one may recover in training.

    Args:
        chats: subject -> rows answered by one of two letters.
        candidates: name -> directions.
        operator: function that turns directions into an intervention; default: `ablate`.
        chance_tolerance, keep_ratio: see `AblationCheck`.
        store: where accuracies are cached; default: see `default_store`.
    """
    both = {name: chats[name] for name in (intended, unintended)}
    off = {name: letter_accuracy(model, rows, store=store) for name, rows in both.items()}
    checks: dict[str, AblationCheck] = {}
    rank = {label: sum(directions.ranks.values()) for label, directions in candidates.items()}
    for label in sorted(candidates, key=rank.__getitem__):
        if sum(check.passes for check in checks.values()) == keep:
            break  # every remaining candidate has at least this rank, so it would be sorted after these
        during = operator(candidates[label])
        on = {name: letter_accuracy(model, rows, during=during, store=store) for name, rows in both.items()}
        checks[label] = AblationCheck(on, off, intended, unintended, chance_tolerance, keep_ratio)

    def sort_key(label: str) -> tuple[bool, float]:
        check = checks[label]
        remaining = max(0.0, abs(check.on[unintended].value - 0.5) - chance_tolerance)
        lost = max(0.0, keep_ratio * off[intended].value - check.on[intended].value)
        return not check.passes, rank[label] if check.passes else remaining + 0.5 * lost

    return {label: checks[label] for label in sorted(checks, key=sort_key)[:keep]}


@dataclass(frozen=True)
class CandidateTrials:
    """Validation accuracies of each candidate.

    rows: one for each candidate, with name, ood, task and ranks.
    min_task_accuracy: "task" accuracy from which a candidate counts as having learned the task.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    min_task_accuracy: float = 0.95

    @property
    def best(self) -> str | None:
        """The name of the candidate with the highest "ood" accuracy among those that learned the task.

        If none learned the task, the candidate with the highest sum of both accuracies. None without
        candidates.
        """
        able = [row for row in self.rows if row["task"] >= self.min_task_accuracy]
        key = (lambda row: row["ood"]) if able else (lambda row: row["ood"] + row["task"])
        return max(able or self.rows, key=key)["name"] if self.rows else None


@checked
def try_candidates(
    model: PreTrainedModel,
    task: Task,
    candidates: Mapping[str, Directions],
    config: FinetuneConfig | None = None,
    *,
    operator: Operator = ablate,
    seed: int = 0,
    target_accuracy: float = 0.97,
    min_task_accuracy: float = 0.95,
    store: Store | None = None,
) -> CandidateTrials:
    """Fine-tune under each candidate, in the order given, and measure on `task` with hooks off.

    Args:
        task: made with split="valid"; it declares the rates "ood_accuracy" and "task_accuracy".
        candidates: name -> directions.
        operator: function that turns directions into an intervention; default: `ablate`.
        target_accuracy: the "ood" accuracy at which the search stops.
        min_task_accuracy: "task" accuracy that a candidate needs to be preferred.
    """
    rows: list[dict[str, Any]] = []
    for name, directions in candidates.items():
        tuned = finetune(model, task.train, config, during=operator(directions), seed=seed, store=store)
        result = measure(tuned, task, temperature=0, batch_size=128, store=store)
        row = {
            "name": name,
            "ood": result.rate("ood_accuracy").value,
            "task": result.rate("task_accuracy").value,
            "ranks": directions.ranks,
        }
        rows.append(row)
        if row["ood"] >= target_accuracy and row["task"] >= min_task_accuracy:
            break
    return CandidateTrials(rows, min_task_accuracy)
