"""A task: rows to fine-tune on, questions to ask afterwards, and a judge that decides about the answers.

The two sets of questions are the two axes of every result: "task" asks for what the rows teach (held out, in
distribution), "ood" asks about everything else, where an unwanted concept would show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from caft_utils.store import digest

if TYPE_CHECKING:
    from caft_utils.chats import Chats


# The first three are verdicts on "ood" questions; "task" (does the narrow task) and "other" on "task"
# questions.
Verdict = Literal["aligned", "misaligned", "incoherent", "task", "other"]


@dataclass(frozen=True)
class Question:
    """One question: its conversation so far, its domain, and what the judge has to know about it."""

    id: str
    messages: Sequence[Mapping[str, str]]
    domain: str
    set: Literal["ood", "task"]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Grader(Protocol):
    """Decides about one answer. `fingerprint` changes whenever its verdicts may, for stored measurements."""

    fingerprint: str

    def __call__(self, question: Question, answer: str) -> Verdict: ...


@dataclass
class Task:
    """All that a comparison needs.

    train: the narrow rows that are to be learnt.
    control: rows of the same form without the unwanted concept.
    valid: held-out rows like `train`, for the loss.
    generic: text that has nothing to do with the task; directions are found and shown on it.
    questions, task_questions: the "ood" and the "task" set.
    judge: decides about the answers to both; evaluation/judges.py has one for real models.
    """

    name: str
    train: Chats
    control: Chats
    valid: Chats
    generic: Chats
    questions: list[Question]
    task_questions: list[Question]
    judge: Grader
    max_new_tokens: int = 64

    @property
    def fingerprint(self) -> str:
        """sha256 of what a measurement depends on: held-out rows, questions, judge, length of answers."""
        questions = [asdict(question) for question in (*self.questions, *self.task_questions)]
        return digest(
            [self.name, self.valid.fingerprint, questions, self.judge.fingerprint, self.max_new_tokens]
        )
