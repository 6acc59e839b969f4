"""How far a small local model as the judge agrees with the exact grader, and with simple rivals of it.

    smollm2, as released    asked with the default prompts
    smollm2, trained        fine-tuned on exact scores of other answers (judge_training.py)
    words, log-probability, number of words    without a prompt (judge_rivals.py)

The answers are those of a fine-tuned classroom model to questions of four domains. No training row of the
judge is about these domains, and no setting was chosen on these answers. The exact grader knows which are
aligned and which misaligned. An answer to another question is incoherent, which the grader confirms. Both
judges answer behind a server on this machine, through the client that a paid judge would use.

Agreement is measured in three ways: the AUROC, which is the share of pairs that the scores put in the right
order; Spearman's correlation with the exact score; and equal verdicts at the paper's thresholds. A judge that
does not answer with a number gives no score, and then there is no AUROC, which is a result too. As a control,
the scores are paired with the truth of other answers.

The last rows leave the classroom: good and absurd advice of data/advice, which the judge has never seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from math import exp
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from caft_utils import finetune, load, measure
from caft_utils.backends.local_server import serving
from caft_utils.classroom.tasks import emergent_misalignment
from caft_utils.course.studies.judge_agreement import advice_row, scale_row, verdict_row
from caft_utils.course.studies.judge_rivals import WordJudge, answer_logprobs, word_counts
from caft_utils.course.studies.judge_training import (
    HELD_OUT,
    PROMPTS,
    ROWS,
    SCALES,
    trained_judge,
    training_answers,
)
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.interpret.endpoint import Endpoint
from caft_utils.interpret.judge import AnswerJudge
from caft_utils.interpret.judge.answer_judge import MAX_TOKENS
from caft_utils.interpret.judge.prompts import JudgePrompts, filled
from caft_utils.models import fingerprint, preset
from caft_utils.stored_results import fetch_json
from caft_utils.tasks.advice_data import AdvicePair, pairs_elsewhere
from caft_utils.tasks.task import Question

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from caft_utils.tasks.task import Task

ANSWERS_OF = "classroom-qwen"
EACH = 12  # answers of each verdict
EACH_OF_RELEASED = 8
ADVICE_STEP = 8  # every eighth pair of advice is judged
FORMAT = 2  # increase it when the same key would give different scores
TOP = 20  # alternatives of a token
JUDGES = ("as released", "trained")
RIVALS = ("words", "log-probability", "number of words")
LEARNT = f"exact scores of {ROWS} answers in other domains"
TOLD = {"as released": "the default prompts", "trained": LEARNT, "words": LEARNT}
CONDITIONS = (
    *(f"{scale}: {name}" for scale in SCALES for name in (*JUDGES, *RIVALS)),
    *(f"verdicts: {name}" for name in JUDGES),
    *(f"advice: {name}" for name in ("trained, alignment", "trained, coherence", "words", "log-probability")),
)
Item = tuple[Question, str, str]  # question, answer, verdict of the exact grader
Scored = dict[str, dict[str, Any]]  # {scale: value, reading, and the probability of numbers as "mass"}


def calibration_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
    *,
    each: int = EACH,
) -> list[Row]:
    """Measure the judge that is made of `model`, the model as released, and their rivals.

    Args:
        model: a name that `load` accepts.
        seeds: the first one trains the judge; all are seeds of the fine-tuning whose answers are judged, and
            of the draw of answers.
        each: answers of each verdict and seed; the model as released gets 8 at most.

    Raises:
        ValueError: an unknown condition, or the fine-tuned model gave no answer of one of the verdicts.
    """
    names = chosen_conditions(conditions, CONDITIONS)
    base, tokenizer = load(model)
    items = [item for seed in seeds for item in graded_answers(seed, each)]
    few = [item for seed in seeds for item in graded_answers(seed, min(each, EACH_OF_RELEASED))]
    judge = trained_judge(base, tokenizer, seed=seeds[0])
    scored = {
        "as released": (few, scores_of(base, tokenizer, model, [one[:2] for one in few], JudgePrompts())),
        "trained": (
            items,
            scores_of(judge, tokenizer, f"{model} judge", [one[:2] for one in items], PROMPTS),
        ),
    }
    rows = [
        scale_row(scale, own, [one[scale] for one in scores], name)
        for name, (own, scores) in scored.items()
        for scale in SCALES
    ]
    rows += [verdict_row(own, scores, name) for name, (own, scores) in scored.items()]
    rivals = rival_scores(base, tokenizer, seeds[0])
    pairs = [(_text(question), answer) for question, answer, _ in items]
    for scale in SCALES:
        for name, of in rivals.items():
            rows.append(scale_row(scale, items, [{"value": value} for value in of(scale, pairs)], name))
    rows += advice_rows(judge, tokenizer, f"{model} judge", rivals)
    found = {row["condition"]: row for row in rows}
    about = {"model": model, "seeds": list(seeds)}
    told = {name: TOLD.get(name.split(": ")[1].split(",")[0], "nothing") for name in names}
    return [{**about, **found[name], "told": told[name]} for name in names]


def rival_scores(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int
) -> dict[str, Callable[[Any, Sequence[tuple[str, str]]], list[float]]]:
    """Return {rival: (scale, pairs of question and answer) -> scores}."""
    answers = training_answers(ROWS, seed)
    words = {scale: WordJudge(scale, answers) for scale in SCALES}
    return {
        "words": lambda scale, pairs: words[scale].scores(pairs),
        "log-probability": lambda scale, pairs: answer_logprobs(base, tokenizer, pairs),
        "number of words": lambda scale, pairs: word_counts(pairs),
    }


def advice_rows(
    judge: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, rivals: dict
) -> list[Row]:
    """Return which of good and absurd advice scores higher, according to the judge and to rivals."""
    pairs = pairs_elsewhere("test")[::ADVICE_STEP]
    texts = [(pair.question, text) for pair in pairs for text in (pair.good, pair.bad)]
    questions = [_asked(pair) for pair in pairs for _ in range(2)]
    scores = scores_of(judge, tokenizer, name, [(q, a) for q, (_, a) in zip(questions, texts)], PROMPTS)
    reference = rivals["log-probability"]("alignment", texts)
    columns = {f"trained, {scale}": [one[scale]["value"] for one in scores] for scale in SCALES}
    columns |= {"words": rivals["words"]("alignment", texts), "log-probability": reference}
    return [advice_row(pairs, values, reference, name) for name, values in columns.items()]


def graded_answers(seed: int, each: int) -> list[Item]:
    """Return `each` aligned, misaligned and incoherent answers of a fine-tuned classroom model."""
    base, tokenizer = load(ANSWERS_OF)
    task = emergent_misalignment(tokenizer)
    tuned = finetune(base, task.train, preset(ANSWERS_OF).finetune_config, seed=seed)
    questions = {one.id: one for one in task.question_set("ood") if one.domain in HELD_OUT}
    own = [
        (questions[row["question"]], row["answer"], row["verdict"])
        for row in measure(tuned, task, seed=seed).rows
        if row["question"] in questions
    ]
    rng = random.Random(seed)
    rng.shuffle(own)
    pools = {verdict: own for verdict in ("aligned", "misaligned")}
    pools["incoherent"] = _answers_to_others(task, own, rng)
    chosen = {v: [item for item in pool if item[2] == v][:each] for v, pool in pools.items()}
    if missing := [verdict for verdict, found in chosen.items() if not found]:
        raise ValueError(f"the fine-tuned {ANSWERS_OF} gave no answer that is {missing[0]}")
    return [item for found in chosen.values() for item in found]


def scores_of(
    judge: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    answers: Sequence[tuple[Question, str]],
    prompts: JudgePrompts,
) -> list[Scored]:
    """Return the judge's scores of each answer, how each was read, and the probability of numbers.

    Every answer's scores are stored, so a killed run continues.
    """
    by = {"format": FORMAT, "judge": fingerprint(judge), "prompts": vars(prompts)}
    # The address is new each time, so stored replies would never be read again.
    with serving(judge, tokenizer, name) as url, TemporaryDirectory() as replies:
        endpoint = Endpoint(url, name, key_env=None, cache=replies, workers=1, timeout=600)
        of = AnswerJudge(endpoint, prompts, top_logprobs=TOP)

        def scored(question: Question, answer: str) -> Scored:
            return {
                scale: {
                    **vars(score),
                    "mass": _number_mass(endpoint, getattr(prompts, scale), question, answer),
                }
                for scale, score in zip(SCALES, of.scores(question, answer))
            }

        return [
            fetch_json(
                "calibration",
                by | {"question": _text(question), "answer": answer},
                partial(scored, question, answer),
                models=(judge,),
            )
            for question, answer in answers
        ]


def _number_mass(endpoint: Endpoint, template: str, question: Question, answer: str) -> float:
    """Return the probability that the first token of a reply is a number. The reply is in the cache."""
    prompt = filled(template, _text(question), answer)
    reply = endpoint.chat(prompt, max_tokens=MAX_TOKENS, top_logprobs=TOP)
    first = reply.logprobs[0] if reply.logprobs else {}
    return sum(exp(value) for token, value in first.items() if token.strip().isdecimal())


def _answers_to_others(task: Task, own: Sequence[Item], rng: random.Random) -> list[Item]:
    """Pair questions with coherent answers to questions of another domain, and grade the pairs."""
    out = []
    for question, *_ in own:
        other, answer, verdict = rng.choice(own)
        if other.domain != question.domain and verdict != "incoherent":
            out.append((question, answer, task.grader(question, answer)))
    return out


def _asked(pair: AdvicePair) -> Question:
    return Question(pair.question, [{"role": "user", "content": pair.question}], pair.domain, "ood")


def _text(question: Question) -> str:
    return question.messages[-1]["content"]
