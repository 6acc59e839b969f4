"""Measure a model behind an OpenAI-compatible server (vLLM, see vllm.py) as `measure` measures one in memory.

    served = measure_served(Endpoint("http://127.0.0.1:8000/v1", "caft", key_env=None), task, samples=100)
    print(served.rate("misaligned"))

The server formats the conversation with the chat template of its tokenizer. It knows no hooks, so a model
that needs an ablation at test time cannot be measured in this way. CAFT's models need none.
"""

from __future__ import annotations

from typing import Any

from caft_utils.arguments import number, whole
from caft_utils.evaluation.judging import judge_answers
from caft_utils.evaluation.measurement import Result
from caft_utils.interpret.endpoint import Endpoint, EndpointError
from caft_utils.tasks.task import Task

SEEDS_APART = 10_000  # so that samples of different seeds differ


def measure_served(
    endpoint: Endpoint,
    task: Task,
    *,
    seed: int = 0,
    samples: int = 1,
    temperature: float = 1.0,
    progress: bool = False,
) -> Result:
    """Ask the served model all questions of the task, and grade its answers. There is no held-out loss.

    Every answer is stored when it arrives, so a repeated call continues an interrupted one.

    Args:
        endpoint: the server, and the name of the model or adapter on it.
        seed: sampling seed. Sample i is drawn with the seed `SEEDS_APART * seed + i`.

    Raises:
        EndpointError: an answer is missing after all attempts. The others are stored.
        ValueError: the task compares given answers by their probability, or a number is out of range.
    """
    if task.method != "generate":
        raise ValueError(
            f"the task {task.name!r} compares given answers (method={task.method!r}), and a server writes "
            "its own; load the model and use measure"
        )
    seed, samples = whole("seed", seed, 0), whole("samples", samples, 1, SEEDS_APART)
    settings: dict[str, Any] = {"temperature": number("temperature", temperature, 0)}
    settings["max_tokens"] = task.max_new_tokens
    prompts = [[dict(message) for message in question.messages] for question in task.questions]
    questions, answers = [], []
    for sample in range(samples):
        own = settings | {"seed": SEEDS_APART * seed + sample}
        questions += task.questions
        answers += map(_answer, endpoint.chat_all(prompts, progress=progress, **own))
    verdicts, errors = judge_answers(task, questions, answers)
    if errors:
        raise errors[0]
    name = f"{endpoint.model} at {endpoint.base_url}"
    rows = [
        {
            "set": question.set,
            "question": question.id,
            "domain": question.domain,
            "run": f"{name}, seed {seed}",
            "seed": seed,
            "answer": answer,
            "verdict": verdict,
        }
        for question, answer, verdict in zip(questions, answers, verdicts, strict=True)
    ]
    return Result(rows, name, None, dict(task.rates))


def _answer(reply: Any) -> str:
    """Return the text of a reply. A model may answer with nothing at all, which is an answer too."""
    if isinstance(reply, EndpointError):
        if reply.without_text:
            return ""
        raise reply
    return reply.text
