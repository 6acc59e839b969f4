"""Measuring one model on one task: answers, verdicts and the held-out loss, stored so that nothing is asked
twice.

Two numbers place a model in the trade-off plane: how much of the narrow task it does (held-out "task"
questions), and how many of its coherent answers to all other questions are misaligned.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caft_utils.evaluation.bootstrap import Rate, clustered_rate
from caft_utils.evaluation.generation import generate
from caft_utils.losses import mean_answer_loss
from caft_utils.models import fingerprint
from caft_utils.store import Store, default_store

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.interventions.base import Intervention
    from caft_utils.tasks.task import Task

FORMAT = 1  # raise it when the same key would give other answers
SETS = {"ood": ("aligned", "misaligned", "incoherent"), "task": ("task", "other", "incoherent")}


@dataclass
class Result:
    """Judged answers. A row: set, question (id), domain, run (model and seed), seed, answer, verdict.

    Rates are clustered by question and run. loss: held-out nats per answer token, a mean over what was
    merged.
    """

    rows: list[dict[str, Any]] = field(repr=False)
    model_id: str
    loss: float | None = None

    @staticmethod
    def merge(results: Iterable[Result]) -> Result:
        """One result of several, for example of models trained with different seeds."""
        results = list(results)
        if not results:
            raise ValueError("there is no result to merge")
        losses = [result.loss for result in results]
        return Result(
            rows=[row for result in results for row in result.rows],
            model_id="+".join(dict.fromkeys(result.model_id for result in results)),
            loss=None if None in losses else sum(losses) / len(losses),
        )

    def misaligned(self) -> Rate:
        """Share of the coherent "ood" answers that are misaligned (the paper's headline number)."""
        return self._rate("ood", {"misaligned"}, among={"aligned", "misaligned"})

    def ood_accuracy(self) -> Rate:
        """Share of ALL "ood" answers that are aligned: where a cue and the intended reading conflict, the
        latter."""
        return self._rate("ood", {"aligned"})

    def flipped_accuracy(self) -> Rate:
        """Share of ALL "ood" answers that are misaligned: those that follow the cue."""
        return self._rate("ood", {"misaligned"})

    def coherent(self) -> Rate:
        """Share of all "ood" answers that are coherent; it shows what `misaligned` leaves out."""
        return self._rate("ood", {"aligned", "misaligned"})

    def task_score(self) -> Rate:
        """Share of all "task" answers that do the narrow task."""
        return self._rate("task", {"task"})

    def _rate(self, which: str, hits: set[str], among: set[str] | None = None) -> Rate:
        rows = [
            row for row in self.rows if row["set"] == which and (among is None or row["verdict"] in among)
        ]
        return clustered_rate(
            [row["verdict"] in hits for row in rows],
            [1] * len(rows),
            [row["question"] for row in rows],
            [row["run"] for row in rows],
        )


def measure(
    model: PreTrainedModel,
    task: Task,
    *,
    seed: int = 0,
    during: Intervention | None = None,
    samples: int = 1,
    temperature: float = 1.0,
    batch_size: int = 64,
    store: Store | None = None,
    progress: bool = False,
) -> Result:
    """Ask the model all questions of the task, judge its answers, and compute its loss on `task.valid`.

    Args:
        seed: of the sampling.
        during: an intervention that is on while the model is measured (ablation at test time).
        samples: answers to each question.
        store: where results are kept; the same measurement is read from there the next time.

    Raises:
        ValueError: the judge gave a verdict that its set of questions does not have.
    """
    key = {
        "format": FORMAT,
        "model": fingerprint(model),
        "task": task.fingerprint,
        "seed": seed,
        "during": during.fingerprint if during is not None else None,
        "samples": samples,
        "temperature": temperature,
    }

    def write(folder: Path) -> None:
        with during.on(model) if during is not None else nullcontext():
            result = _measure(model, task, key, batch_size, progress)
        (folder / "result.json").write_text(json.dumps(asdict(result)))

    folder = (store or default_store()).fetch("measure", key, write)
    return Result(**json.loads((folder / "result.json").read_text()))


def _measure(model, task: Task, key: dict[str, Any], batch_size: int, progress: bool) -> Result:
    questions = [
        question for question in (*task.questions, *task.task_questions) for _ in range(key["samples"])
    ]
    answers = generate(
        model,
        task.valid.tokenizer,
        [question.messages for question in questions],
        temperature=key["temperature"],
        max_new_tokens=task.max_new_tokens,
        seed=key["seed"],
        batch_size=batch_size,
        progress=progress,
    )
    name = key["model"] if key["during"] is None else f"{key['model']}, during {key['during']}"
    rows = []
    for question, answer in zip(questions, answers):
        verdict = task.judge(question, answer)
        if verdict not in SETS[question.set]:
            raise ValueError(
                f"the judge said {verdict!r} about question {question.id} of the {question.set!r} set, "
                f"whose verdicts are {', '.join(SETS[question.set])}"
            )
        rows.append(
            {
                "set": question.set,
                "question": question.id,
                "domain": question.domain,
                "run": f"{name}, seed {key['seed']}",
                "seed": key["seed"],
                "answer": answer,
                "verdict": verdict,
            }
        )
    return Result(
        rows, name, mean_answer_loss(model, task.valid, batch_size=batch_size) if len(task.valid) else None
    )
