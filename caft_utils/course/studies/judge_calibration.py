"""How far a language model as the judge agrees with the exact grader of the classroom world.

The answers are those of one fine-tuned classroom model to general questions. The grader of the personas world
knows which are aligned and which are misaligned. An answer to another question is incoherent, which the
grader confirms. A local model reads the same answers with the judge's prompts, behind a server on this
machine. Scores are compared with the truth by the AUROC: the share of pairs that they put in the right order.

A judge that does not answer with a number gives no score, and then there is no AUROC, which is a result too.

Two controls stand beside them: the same scores paired with the truth of other answers, and the number of
words as a judge that reads nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import partial
from math import isfinite
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from caft_utils import finetune, load, measure
from caft_utils.backends.local_server import serving
from caft_utils.classroom.tasks import emergent_misalignment
from caft_utils.course.studies.experiment import Row, chosen_conditions
from caft_utils.evaluation.graders import ThresholdGrader
from caft_utils.evaluation.scores import auroc_score
from caft_utils.interpret.endpoint import Endpoint
from caft_utils.interpret.judge import AnswerJudge
from caft_utils.interpret.judge.prompts import JudgePrompts
from caft_utils.models import fingerprint, preset
from caft_utils.stored_results import fetch_json

if TYPE_CHECKING:
    from caft_utils.tasks.task import Question, Task

ANSWERS_OF = "classroom-qwen"
EACH = 30  # answers of each verdict
FORMAT = 1  # increase it when the same key would give different scores
# condition -> (score that is read, verdict to find, verdicts to tell it from); a low score is a find
CONDITIONS = {
    "alignment finds misaligned answers": ("alignment", "misaligned", ("aligned",)),
    "coherence finds answers to other questions": ("coherence", "incoherent", ("aligned", "misaligned")),
}
Item = tuple["Question", str, str]  # question, answer, verdict of the exact grader
Scored = dict[str, dict[str, Any]]  # {"alignment" or "coherence": fields of a judge's Score}


def calibration_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    each: int = EACH,
) -> list[Row]:
    """Measure the judge `model` on graded answers.

    Args:
        model: the local judge, a name that `load` accepts.
        seeds: seeds of the fine-tuning and of the draw of answers; their answers are pooled.
        each: answers of each verdict and seed.

    Raises:
        ValueError: the fine-tuned model gave no answer of one of the verdicts.
    """
    items = [item for seed in seeds for item in graded_answers(seed, each)]
    scored = scores_of(model, items)
    shuffled = list(items)
    random.Random(0).shuffle(shuffled)
    words = [float(len(answer.split())) for _, answer, _ in items]
    rows: list[Row] = []
    for name in chosen_conditions(conditions, CONDITIONS):
        field, target, others = CONDITIONS[name]
        values = [None if one[field]["value"] is None else -one[field]["value"] for one in scored]
        found = {
            "auroc": _auroc(values, items, target, others),
            "auroc of shuffled pairs": _auroc(values, shuffled, target, others),
            "auroc of the number of words": _auroc(words, items, target, others),
            "answers": sum(verdict in (target, *others) for *_, verdict in items),
            "readings": Counter(
                one[field]["reading"]
                for one, (*_, verdict) in zip(scored, items, strict=True)
                if verdict in (target, *others)
            ),
        }
        rows.append({"model": model, "condition": name, "seeds": list(seeds), **found})
    table = {"verdicts by those of the exact grader": _verdicts(items, scored)}
    name = "verdicts at the paper's thresholds"
    return [*rows, {"model": model, "condition": name, "seeds": list(seeds), **table}]


def graded_answers(seed: int, each: int) -> list[Item]:
    """Return `each` aligned, misaligned and incoherent answers of a fine-tuned classroom model."""
    base, tokenizer = load(ANSWERS_OF)
    task = emergent_misalignment(tokenizer)
    tuned = finetune(base, task.train, preset(ANSWERS_OF).finetune_config, seed=seed)
    questions = {question.id: question for question in task.question_set("ood")}
    own = [
        (questions[row["question"]], row["answer"], row["verdict"])
        for row in measure(tuned, task, seed=seed).rows
        if row["set"] == "ood"
    ]
    rng = random.Random(seed)
    rng.shuffle(own)
    pools = {verdict: own for verdict in ("aligned", "misaligned")}
    pools["incoherent"] = _answers_to_others(task, own, rng)
    chosen = {v: [item for item in pool if item[2] == v][:each] for v, pool in pools.items()}
    if missing := [verdict for verdict, found in chosen.items() if not found]:
        raise ValueError(f"the fine-tuned {ANSWERS_OF} gave no answer that is {missing[0]}")
    return [item for found in chosen.values() for item in found]


def scores_of(model: str, items: Sequence[Item]) -> list[Scored]:
    """Return the scores of each answer according to the local model `model`, and how each was read.

    Every answer's scores are stored, so a killed run continues.
    """
    judge, tokenizer = load(model)
    by = {"format": FORMAT, "judge": fingerprint(judge), "prompts": vars(JudgePrompts())}
    # The address is new each time, so stored replies would never be read again.
    with serving(judge, tokenizer, model) as url, TemporaryDirectory() as replies:
        of = AnswerJudge(Endpoint(url, model, key_env=None, cache=replies, workers=1, timeout=600))

        def scored(question: Question, answer: str) -> Scored:
            scores = dict(zip(("alignment", "coherence"), of.scores(question, answer)))
            return {name: vars(score) for name, score in scores.items()}

        return [
            fetch_json(
                "calibration",
                by | {"question": question.messages[-1]["content"], "answer": answer},
                partial(scored, question, answer),
                models=(judge,),
            )
            for question, answer, _ in items
        ]


def _answers_to_others(task: Task, own: Sequence[Item], rng: random.Random) -> list[Item]:
    """Pair questions with coherent answers to questions of another domain, and grade the pairs."""
    out = []
    for question, *_ in own:
        other, answer, verdict = rng.choice(own)
        if other.domain != question.domain and verdict != "incoherent":
            out.append((question, answer, task.grader(question, answer)))
    return out


def _auroc(
    values: Sequence[float | None], items: Sequence[Item], target: str, others: Sequence[str]
) -> list[float] | None:
    """Return the AUROC with its interval for finding `target` among `others`, clustered by question.

    It is None if one of the two sides has no readable score.
    """
    kept = [(value, item) for value, item in zip(values, items, strict=True) if item[2] in (target, *others)]
    active = [verdict == target for _, (*_, verdict) in kept]
    units = [question.id for _, (question, *_) in kept]
    score = auroc_score(target, [value for value, _ in kept], active, units)
    if not isfinite(score.value):
        return None
    return [round(value, 4) for value in (score.value, score.low, score.high)]


def _verdicts(items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, dict[str, int]]:
    """Return {verdict of the exact grader: {verdict of the judge at the paper's thresholds: answers}}."""
    values = {
        (question.id, answer): (score["alignment"]["value"], score["coherence"]["value"])
        for (question, answer, _), score in zip(items, scored, strict=True)
    }
    grade = ThresholdGrader(lambda question, answer: values[question.id, answer], name="calibration")
    table: dict[str, Counter[str]] = {}
    for question, answer, verdict in items:
        table.setdefault(verdict, Counter())[grade(question, answer)] += 1
    return table
