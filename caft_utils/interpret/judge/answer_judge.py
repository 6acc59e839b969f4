"""The judge of the paper's experiments: a language model behind a server that scores answers.

    judge = AnswerJudge(Endpoint("https://api.openai.com/v1", "gpt-4.1-2025-04-14", price=(2, 8)), budget=10)
    print(judge.estimate(questions, answers))                 # the cost, before anything is sent
    task = emergent_misalignment(tokenizer, ..., grader=judge.grader())

`measure` generates the answers, stores them, and gives them to the grader. The grader asks for all scores at
once, with the workers and the rate limit of the endpoint, and every reply is stored when it arrives. A killed
or interrupted run asks only for what is missing. Thresholds are those of the paper (graders.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from caft_utils.arguments import number
from caft_utils.evaluation.graders import ThresholdGrader
from caft_utils.interpret.judge.prompts import JudgePrompts, filled
from caft_utils.interpret.judge.scores import MIN_MASS, JudgeScore, score_of
from caft_utils.store import digest

if TYPE_CHECKING:
    from caft_utils.interpret.endpoint import Endpoint, Estimate
    from caft_utils.tasks.task import Question

MAX_TOKENS = 8  # a number, or "NOT VALID"


class OverBudgetError(RuntimeError):
    """The scores would cost more than the budget, or their price is unknown. Nothing was sent."""

    for_all = True  # ends a batch of answers


class AnswerJudge:
    """Scores of answers according to a language model.

    Args:
        endpoint: the model, with its price, rate limit and cache.
        prompts: what it is asked; default: the course's own wording.
        top_logprobs: alternatives to ask for; None for servers that refuse them. The number in the text then
            counts.
        min_mass: probability that numbers need together.
        max_tokens: longest reply. A judge that thinks first needs more.
        budget: dollars that one batch of answers may cost at most. None: no limit.

    Raises:
        ValueError: `min_mass` is outside 0..1, or `budget` is negative.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        prompts: JudgePrompts | None = None,
        *,
        top_logprobs: int | None = 20,
        min_mass: float = MIN_MASS,
        max_tokens: int = MAX_TOKENS,
        budget: float | None = None,
    ):
        self.endpoint, self.prompts = endpoint, prompts or JudgePrompts()
        self.min_mass = float(number("min_mass", min_mass, 0, 1))
        self.budget = None if budget is None else float(number("budget", budget, 0))
        self._settings = {"max_tokens": max_tokens, "top_logprobs": top_logprobs}
        asked = {"prompts": vars(self.prompts), "min_mass": self.min_mass, **self._settings}
        self.name = f"judge {endpoint.model} {digest(asked)[:16]}"
        self.readings: Counter[str] = Counter()  # how scores were read since this object was made

    def grader(self, **thresholds: float) -> ThresholdGrader:
        """Return the grader of a task; `thresholds` as in `ThresholdGrader`, 30 and 50 by default."""
        task_score = None if self.prompts.task is None else self.task_score
        return ThresholdGrader(
            self.score, name=self.name, task_score=task_score, prepare=self.prepare, **thresholds
        )

    def score(self, question: Question, answer: str) -> tuple[float | None, float | None]:
        """Return alignment and coherence, 0 to 100 or None.

        Raises:
            EndpointError: the server gave no reply.
        """
        alignment, coherence = self.scores(question, answer)
        return alignment.value, coherence.value

    def scores(self, question: Question, answer: str) -> tuple[JudgeScore, JudgeScore]:
        """Return alignment and coherence, each with how it was read."""
        alignment, coherence = (self._ask(prompt) for prompt in self._prompts(question, answer))
        return alignment, coherence

    def task_score(self, question: Question, answer: str) -> float | None:
        """Return the score of an answer to a question of the set "task": how vulnerable its code is."""
        (prompt,) = self._prompts(question, answer)
        return self._ask(prompt).value

    def estimate(self, questions: Sequence[Question], answers: Sequence[str]) -> Estimate:
        """Return what judging these answers will take. Replies that are stored cost nothing."""
        return self.endpoint.estimate(self._all(questions, answers), **self._settings)

    def prepare(self, questions: Sequence[Question], answers: Sequence[str]) -> None:
        """Print the estimate, and ask for all scores at once. Single failures are asked for again later.

        Raises:
            OverBudgetError: the estimate is above the budget.
            EndpointError: the server refuses all requests alike.
        """
        estimate = self.estimate(questions, answers)
        if estimate.cached == estimate.prompts:
            return
        print(f"{self.endpoint.model} as judge: {estimate}")
        if self.budget is not None and (estimate.cost is None or estimate.cost > self.budget):
            raise OverBudgetError(
                f"judging {len(answers)} answers: {estimate}, and the budget is ${self.budget:,.2f}. Nothing "
                "was sent. Raise the budget, give Endpoint its price=(in, out), or ask fewer questions"
            )
        replies = self.endpoint.chat_all(self._all(questions, answers), **self._settings)
        for error in replies:
            if isinstance(error, Exception) and getattr(error, "for_all", False):
                raise error

    def _ask(self, prompt: list[dict[str, str]]) -> JudgeScore:
        score = score_of(self.endpoint.chat(prompt, **self._settings), min_mass=self.min_mass)
        self.readings[score.reading] += 1
        return score

    def _all(self, questions: Sequence[Question], answers: Sequence[str]) -> list[list[dict[str, str]]]:
        pairs = zip(questions, answers, strict=True)
        return [prompt for question, answer in pairs for prompt in self._prompts(question, answer)]

    def _prompts(self, question: Question, answer: str) -> list[list[dict[str, str]]]:
        asked = question.messages[-1]["content"]  # a system prompt is not shown, as in the published judge
        templates = (self.prompts.alignment, self.prompts.coherence)
        if question.set == "task":
            templates = () if self.prompts.task is None else (self.prompts.task,)
        return [filled(template, asked, answer) for template in templates]
