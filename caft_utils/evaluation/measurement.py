"""Measure one model on one task: answers, verdicts and held-out loss, stored so that no work is repeated.

A model answers by generation. If the grader lists the possible answers to a question, a model can also answer
by choosing the most probable one.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from torch import nn

from caft_utils.arguments import checked, instance
from caft_utils.evaluation.answering import answers_key, question_of_each_answer, write_answers
from caft_utils.evaluation.bootstrap import Rate, clustered_rate
from caft_utils.evaluation.generation import answers_depend_on
from caft_utils.evaluation.judging import UNJUDGED, judge_answers
from caft_utils.interventions.base import check_intervention
from caft_utils.models import fingerprint
from caft_utils.residual import has_hooks
from caft_utils.store import Store, default_store
from caft_utils.stored_results import fetch_json
from caft_utils.tasks.task import Method, RateSpec, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.interventions.base import Intervention
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give different answers


@dataclass
class Result:
    """Graded answers and the rates that their task declares.

    rows: one for each answer, with set, question (id), domain, run (model and seed), seed, answer and
        verdict ("unjudged" where the grader failed);
        with method="logprob" also `probabilities`, {option: probability among the options}.
    loss: held-out loss in nats per answer token; the mean over merged results.
    """

    rows: list[dict[str, Any]] = field(repr=False)
    model_id: str
    loss: float | None = None
    rates: Mapping[str, RateSpec] = field(default_factory=dict, repr=False)

    @staticmethod
    def merge(results: Iterable[Result]) -> Result:
        """Merge several results into one, for example those of models trained with different seeds.

        Raises:
            ValueError: there is no result, or the results declare different rates.
        """
        results = list(results)
        if not results:
            raise ValueError("there is no result to merge")
        if any(result.rates != results[0].rates for result in results):
            raise ValueError("results of tasks with different rates cannot be merged")
        losses = [result.loss for result in results]
        return Result(
            rows=[row for result in results for row in result.rows],
            model_id="+".join(dict.fromkeys(result.model_id for result in results)),
            loss=None if None in losses else sum(losses) / len(losses),
            rates=results[0].rates,
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Result:
        """Return the result that `dataclasses.asdict` turned into a JSON value."""
        return cls(**{**value, "rates": {k: RateSpec(**rate) for k, rate in value.get("rates", {}).items()}})

    @property
    def unjudged(self) -> int:
        """The number of answers that the grader could not judge. They count in no rate."""
        return sum(row["verdict"] == UNJUDGED for row in self.rows)

    def rate(self, name: str) -> Rate:
        """Return a rate of the task, with its interval clustered by question and run.

        Raises:
            KeyError: the task declares no such rate.
        """
        if name not in self.rates:
            raise KeyError(f"no rate {name!r}; the task declares {', '.join(self.rates) or 'none'}")
        spec = self.rates[name]
        rows = [
            row
            for row in self.rows
            if row["set"] == spec.set
            and row["verdict"] != UNJUDGED
            and (spec.among is None or row["verdict"] in spec.among)
        ]
        return clustered_rate(
            [row["verdict"] in spec.hits for row in rows],
            [1] * len(rows),
            [row["question"] for row in rows],
            [row["run"] for row in rows],
        )


@checked
def measure(
    model: PreTrainedModel,
    task: Task,
    *,
    seed: int = 0,
    during: Intervention | None = None,
    samples: int = 1,
    temperature: float = 1.0,
    method: Method | None = None,
    batch_size: int = 64,
    store: Store | None = None,
    progress: bool = False,
) -> Result:
    """Ask the model all questions of the task, grade its answers, and compute its loss on `task.valid`.

    Args:
        seed: sampling seed.
        during: an intervention that is on while the model is measured (ablation at test time).
        samples: number of answers to each question.
        temperature: 0 takes the most likely token.
        method: "generate" writes answers. "logprob" chooses the most probable of the answers that the task's
            grader lists in `options(question)`, without sampling. None: the task's own method.
        store: where results are cached. All answers are stored before they are judged, and each verdict when
            it arrives, so a repeated call continues interrupted judging. Answers that were not all written
            are written again. While something else edits the model
            (`with ablate(bad).on(model)`), nothing is stored or read.

    Returns:
        The result. If the grader fails for single answers, there is a warning and their verdict is
        "unjudged". The next call judges only these.

    Raises:
        NotFiniteError: the model computes NaN or infinite values.
        Exception: an error of the grader that concerns all answers, such as a wrong key.
        ValueError: no model or no intervention, a token without an embedding, a verdict that the question's
            set does not declare, or method="logprob" with several samples or with a grader that lists no
            options.
    """
    instance("model", model, nn.Module, "the model alone, as in model, tokenizer = load(name)")
    if during is not None:
        check_intervention("during", during)
    method = task.method if method is None else method
    if method not in get_args(Method):
        raise ValueError(f"method must be 'generate' or 'logprob', got {method!r}")
    if method == "logprob" and samples != 1:
        raise ValueError(
            f"method='logprob' gives one answer to each question; samples must be 1, got {samples}"
        )
    if method == "logprob" and not hasattr(task.grader, "options"):
        raise ValueError(
            f"method='logprob' needs a grader with options(question), the answers to compare; "
            f"{type(task.grader).__name__} has none"
        )
    key = {
        "format": FORMAT,
        "model": fingerprint(model),
        "task": task.fingerprint,
        "seed": seed,
        "during": during.fingerprint if during is not None else None,
        "samples": samples,
        "temperature": temperature,
        **answers_depend_on(model, task.valid.tokenizer),
    }
    if method != "generate":
        key["method"] = method

    def answers() -> dict[str, Any]:
        return write_answers(model, task, key, during, batch_size=batch_size, progress=progress)

    if has_hooks(model):
        # Something else edits the model, so its fingerprint does not name what is measured.
        result = _graded(task, key, answers())
    else:
        result = _stored(model, task, key, answers, store or default_store())
    result.rates = dict(task.rates)  # the task may have new rates for stored verdicts
    return result


def _stored(
    model, task: Task, key: Mapping[str, Any], write: Callable[[], dict[str, Any]], store: Store
) -> Result:
    """Return the stored result. Otherwise compute it, and store first the answers and then each verdict.

    A result with answers that could not be judged is not stored. Its verdicts stay in the journal.
    """
    if (folder := store.get("measure", key)) is not None:
        return _load(folder)
    answers = fetch_json("answers", answers_key(task, key), write, models=(model,), store=store)
    try:
        with store.work("measure", key) as work:
            if (folder := store.get("measure", key)) is None:  # another process was faster
                result = _graded(task, key, answers, work / "verdicts.jsonl")
                if result.unjudged:
                    raise _Unjudged(result)  # keeps the journal
                folder = store.put("measure", key, lambda folder: _save(result, folder))
    except _Unjudged as unfinished:
        return unfinished.args[0]
    return _load(folder)


class _Unjudged(Exception):
    """Holds a result with answers that could not be judged."""


def _save(result: Result, folder: Path) -> None:
    (folder / "result.json").write_text(json.dumps(asdict(result), allow_nan=False))


def _load(folder: Path) -> Result:
    return Result.from_json(json.loads((folder / "result.json").read_text()))


def _graded(
    task: Task, key: Mapping[str, Any], answers: Mapping[str, Any], journal: Path | None = None
) -> Result:
    """Return the result of `write_answers`, with a warning if some could not be judged."""
    questions = question_of_each_answer(task, key)
    verdicts, errors = judge_answers(task, questions, answers["answers"], journal)
    if errors:
        warnings.warn(
            f"{len(errors)} of {len(verdicts)} answers could not be judged and count in no rate; the same "
            f"call asks for them again. The first error: {errors[0]!r}",
            stacklevel=4,
        )
    details = [{"probabilities": chance} for chance in answers["probabilities"] or ()]
    name = key["model"] if key["during"] is None else f"{key['model']}, during {key['during']}"
    rows = [
        {
            "set": question.set,
            "question": question.id,
            "domain": question.domain,
            "run": f"{name}, seed {key['seed']}",
            "seed": key["seed"],
            "answer": answer,
            "verdict": verdict,
            **more,
        }
        for question, answer, verdict, more in zip(
            questions, answers["answers"], verdicts, details or [{}] * len(verdicts)
        )
    ]
    return Result(rows, name, answers["loss"], dict(task.rates))
