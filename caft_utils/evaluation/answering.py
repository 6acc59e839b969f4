"""Ask a model the questions of a task, and build the store key of its answers.

The grader is not in the key, so two graders can use the same stored answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from caft_utils.evaluation.generation import choose, generate
from caft_utils.losses import mean_answer_loss
from caft_utils.tasks.task import Question, Task, compares_by

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.interventions.base import Intervention


def question_of_each_answer(task: Task, key: Mapping[str, Any]) -> list[Question]:
    """Return the question of each answer. The samples of one question are adjacent."""
    return [question for question in task.questions for _ in range(key["samples"])]


def answers_key(task: Task, key: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the measurement's key that `write_answers` depends on."""
    by_choice, how = "method" in key, compares_by(task.grader)
    parts = {name: value for name, value in key.items() if name != "task"} | {
        "valid": task.valid.fingerprint,
        "prompts": [question.messages for question in task.questions],
        "options": [task.grader.options(question) for question in task.questions] if by_choice else None,
        "max_new_tokens": task.max_new_tokens,
    }
    return parts | {"compare_by": how} if by_choice and how != "logprob" else parts


def write_answers(
    model: PreTrainedModel,
    task: Task,
    key: Mapping[str, Any],
    during: Intervention | None,
    *,
    batch_size: int,
    progress: bool,
) -> dict[str, Any]:
    """Return, as JSON, the "answers" to `question_of_each_answer(task, key)` and the "loss" on `task.valid`.

    With method "logprob", "probabilities" holds the probabilities of each question's options, otherwise None.

    Raises:
        NotFiniteError: the model computes NaN or infinite values.
    """
    tokenizer, questions, chances = task.valid.tokenizer, question_of_each_answer(task, key), None
    prompts = [question.messages for question in questions]
    with during.on(model) if during is not None else nullcontext():
        if key.get("method") == "logprob":
            options = [task.grader.options(question) for question in questions]
            how = compares_by(task.grader)
            chances = choose(model, tokenizer, prompts, options, batch_size=batch_size, compare_by=how)
            answers = [max(chance, key=chance.__getitem__) for chance in chances]
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
        loss = mean_answer_loss(model, task.valid, batch_size=batch_size) if len(task.valid) else None
    return {"answers": answers, "probabilities": chances, "loss": loss}
