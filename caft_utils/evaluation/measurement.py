"""Measure one model on one task: answers, verdicts and the held-out loss, stored so that no work is repeated.

A model answers by generation, or, where the grader knows the possible answers of a question, by choosing the
most probable of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from caft_utils.arguments import checked
from caft_utils.evaluation.bootstrap import Rate, clustered_rate
from caft_utils.evaluation.generation import answers_depend_on, choose, generate
from caft_utils.losses import mean_answer_loss
from caft_utils.models import fingerprint
from caft_utils.stored_results import fetch_result
from caft_utils.tasks.task import RateSpec, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.interventions.base import Intervention
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give different answers
Method = Literal["generate", "logprob"]


@dataclass
class Result:
    """Graded answers and the rates that their task declares.

    rows: one for each answer, with set, question (id), domain, run (model and seed), seed, answer and
        verdict; with method="logprob" also `probabilities`, {option: probability among the options}.
    loss: held-out nats per answer token; the mean over merged results.
    """

    rows: list[dict[str, Any]] = field(repr=False)
    model_id: str
    loss: float | None = None
    rates: Mapping[str, RateSpec] = field(default_factory=dict, repr=False)

    @staticmethod
    def merge(results: Iterable[Result]) -> Result:
        """Return one result of several, for example of models trained with different seeds.

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
            if row["set"] == spec.set and (spec.among is None or row["verdict"] in spec.among)
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
    method: Method = "generate",
    batch_size: int = 64,
    store: Store | None = None,
    progress: bool = False,
) -> Result:
    """Ask the model all questions of the task, grade its answers, and compute its loss on `task.valid`.

    Args:
        seed: sampling seed.
        during: an intervention that is on while the model is measured (ablation at test time).
        samples: answers to each question.
        temperature: 0 takes the most likely token.
        method: "generate" answers; "logprob" chooses the most probable of the answers that the task's grader
            lists in `options(question)`, so it needs no sampling.
        store: where results are stored. A repeated measurement is read from there. While something else
            edits the model (`with ablate(bad).on(model)`), nothing is stored or read.

    Raises:
        ValueError: a verdict that the question's set does not declare, or method="logprob" with several
            samples or with a grader that lists no options.
    """
    if method not in ("generate", "logprob"):
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

    def compute() -> Result:
        with during.on(model) if during is not None else nullcontext():
            return _measure(model, task, key, method, batch_size, progress)

    def save(result: Result, folder: Path) -> None:
        (folder / "result.json").write_text(json.dumps(asdict(result)))

    def load(folder: Path) -> Result:
        return Result.from_json(json.loads((folder / "result.json").read_text()))

    result = fetch_result("measure", key, compute, save=save, load=load, models=[model], store=store)
    result.rates = dict(
        task.rates
    )  # rates only count verdicts, so a stored result may be counted in new ways
    return result


def _measure(
    model, task: Task, key: dict[str, Any], method: Method, batch_size: int, progress: bool
) -> Result:
    tokenizer = task.valid.tokenizer
    questions = [question for question in task.questions for _ in range(key["samples"])]
    prompts = [question.messages for question in questions]
    details: list[dict[str, Any]] = [{} for _ in questions]
    if method == "logprob":
        options = [task.grader.options(question) for question in questions]
        chances = choose(model, tokenizer, prompts, options, batch_size=batch_size)
        answers = [max(chance, key=chance.__getitem__) for chance in chances]
        details = [{"probabilities": chance} for chance in chances]
    else:
        answers = generate(
            model,
            tokenizer,
            prompts,
            temperature=key["temperature"],
            max_new_tokens=task.max_new_tokens,
            seed=key["seed"],
            batch_size=batch_size,
            progress=progress,
        )
    name = key["model"] if key["during"] is None else f"{key['model']}, during {key['during']}"
    rows = [
        {
            "set": question.set,
            "question": question.id,
            "domain": question.domain,
            "run": f"{name}, seed {key['seed']}",
            "seed": key["seed"],
            "answer": answer,
            "verdict": _verdict(task, question, answer),
            **more,
        }
        for question, answer, more in zip(questions, answers, details)
    ]
    loss = mean_answer_loss(model, task.valid, batch_size=batch_size) if len(task.valid) else None
    return Result(rows, name, loss, dict(task.rates))


def _verdict(task: Task, question, answer: str) -> str:
    verdict = task.grader(question, answer)
    if verdict not in task.verdicts[question.set]:
        raise ValueError(
            f"the grader gave {verdict!r} for question {question.id}; the verdicts of set {question.set!r} "
            f"are {', '.join(task.verdicts[question.set])}"
        )
    return verdict
