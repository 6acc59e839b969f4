"""Judge answers one by one, so that no verdict is lost or paid for twice.

A judge may be a language model on a server, which is slow, costs money and sometimes fails. Each verdict is
written to a journal when it arrives, and a later call continues from there. An answer whose judge failed is
"unjudged". It counts in no rate, and the next call asks for it again. An error that every other answer would
meet, such as a wrong key, ends the batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caft_utils.tasks.task import Question, Task

UNJUDGED = "unjudged"
STATUSES_FOR_ALL = (401, 402, 403, 404)  # wrong key, nothing left to pay with, no permission, no such model
MAX_FAILURES_IN_A_ROW = 10  # after them the judge counts as out of order


def judge_answers(
    task: Task, questions: Sequence[Question], answers: Sequence[str], journal: Path | None = None
) -> tuple[list[str], list[Exception]]:
    """Return a verdict for each answer, and the errors of those that are `UNJUDGED`.

    A grader with `prepare(questions, answers)` gets all answers that are left to judge before the first one.

    Args:
        journal: file of earlier verdicts, to which new ones are added. None keeps them in memory only.

    Raises:
        ValueError: the grader gave a verdict that the question's set does not declare.
        Exception: the grader's error, if it concerns all answers, came `MAX_FAILURES_IN_A_ROW` times in a
            row, or came for each answer that was left to judge.
    """
    known = {} if journal is None else _read(journal, task, questions, answers)
    left = [i for i in range(len(answers)) if i not in known]
    if left and getattr(task.grader, "prepare", None) is not None:
        task.grader.prepare([questions[i] for i in left], [answers[i] for i in left])
    verdicts, errors, in_a_row, new = [], [], 0, 0
    for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        if i in known:
            verdicts.append(known[i])
            continue
        try:
            verdict = task.grader(question, answer)
        except Exception as error:
            errors.append(error)
            in_a_row += 1
            if _concerns_all(error) or in_a_row == MAX_FAILURES_IN_A_ROW:
                error.add_note("The answers and all verdicts so far are stored; the same call continues.")
                raise
            verdicts.append(UNJUDGED)
            continue
        _check(task, question, verdict)
        in_a_row, new = 0, new + 1
        verdicts.append(verdict)
        if journal is not None:
            with journal.open("a", encoding="utf-8") as file:
                # The newline comes first, because a kill may have cut the previous line short.
                file.write("\n" + json.dumps({"index": i, "answer": answer, "verdict": verdict}))
    if errors and not new:
        raise errors[0]
    return verdicts, errors


def _concerns_all(error: Exception) -> bool:
    """Return whether the judge would fail for every other answer too.

    Errors of this package have the attribute `for_all`. Those of other clients hold the response's status.
    """
    response = getattr(error, "response", None)
    statuses = [getattr(error, "status", None), *(getattr(e, "status_code", None) for e in (error, response))]
    return (
        bool(getattr(error, "for_all", False))
        or any(status in STATUSES_FOR_ALL for status in statuses)
        or getattr(error, "code", None) == "insufficient_quota"
    )


def _check(task: Task, question: Question, verdict: str) -> None:
    if verdict not in task.verdicts[question.set]:
        raise ValueError(
            f"the grader gave {verdict!r} for question {question.id}; the verdicts of set {question.set!r} "
            f"are {', '.join(task.verdicts[question.set])}"
        )


def _read(
    journal: Path, task: Task, questions: Sequence[Question], answers: Sequence[str]
) -> Mapping[int, str]:
    """Return the verdicts in a journal by the index of their answer. Damaged lines are left out."""
    known: dict[int, str] = {}
    for line in journal.read_bytes().splitlines() if journal.exists() else ():
        try:
            entry: dict[str, Any] = json.loads(line)
            i, answer, verdict = entry["index"], entry["answer"], entry["verdict"]
            if i >= 0 and answers[i] == answer and verdict in task.verdicts[questions[i].set]:
                known[i] = verdict
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
    return known
