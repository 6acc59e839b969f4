"""Answers are written once, and verdicts are kept when they arrive, whatever the judge does."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace

import pytest
from helpers.tasks import LengthGrader, small_task

from caft_utils.evaluation.comparison import compare
from caft_utils.evaluation.judging import MAX_FAILURES_IN_A_ROW, judge_answers
from caft_utils.evaluation.measurement import measure


class FlakyGrader(LengthGrader):
    """Raises `error` at the calls in `fails`, counted from 1."""

    def __init__(self, fails=(), error=RuntimeError("503")):  # noqa: B008
        super().__init__()
        self.fails, self.error = set(fails), error

    def __call__(self, question, answer):
        verdict = super().__call__(question, answer)
        if self.calls in self.fails:
            raise self.error
        return verdict


@pytest.fixture
def task(tokenizer):
    return small_task(tokenizer)  # 18 questions


@pytest.fixture
def written(model):
    """The number of answers that the model writes, counted."""
    counted, real = [], model.generate

    def generate(*args, **kwargs):
        counted.append(len(kwargs["input_ids"]))
        return real(*args, **kwargs)

    model.generate = generate
    return counted


def test_an_answer_that_cannot_be_judged_is_counted_and_asked_for_again(model, task, written, store_folder):
    expected = measure(model, task, store=None)
    task.grader = FlakyGrader({3, 5, 18})
    task.grader.fingerprint = "flaky"
    with pytest.warns(UserWarning, match="3 of 18.*503"):
        first = measure(model, task)
    assert first.unjudged == 3 and [i for i, r in enumerate(first.rows) if r["verdict"] == "unjudged"] == [
        2,
        4,
        17,
    ]
    assert first.rate("coherent").n == 10 and first.rate("task").n == 5
    assert "2 unjudged" not in compare({"a": first}, task)._repr_html_()
    assert "3 unjudged" in compare({"a": first}, task)._repr_html_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = measure(model, task)
    assert task.grader.calls == 18 + 3 and second.unjudged == 0
    assert [r["verdict"] for r in second.rows] == [r["verdict"] for r in expected.rows]
    assert measure(model, task) == second and task.grader.calls == 21
    assert sum(written) == 18  # for both graders
    assert not list((store_folder / "work").rglob("*.jsonl"))


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        Interrupted(),
        type("Refused", (RuntimeError,), {"for_all": True})(),
        type("ApiError", (Exception,), {"status_code": 401})(),
        type("ApiError", (Exception,), {"status": 403})(),
        type("HttpError", (Exception,), {"response": SimpleNamespace(status_code=402)})(),
        type("RateLimit", (Exception,), {"status_code": 429, "code": "insufficient_quota"})(),
    ],
    ids=str,
)
def test_what_ends_a_batch_keeps_what_came_before(model, task, written, error):
    task.grader = FlakyGrader({8}, error)
    with pytest.raises(type(error)):
        measure(model, task)
    assert task.grader.calls == 8
    assert measure(model, task).unjudged == 0 and task.grader.calls == 18 + 1 and sum(written) == 18


def test_a_judge_that_is_out_of_order_is_not_asked_for_ever(model, task):
    task.grader = FlakyGrader(range(4, 100))
    with pytest.raises(RuntimeError, match="503") as caught:
        measure(model, task)
    assert task.grader.calls == 3 + MAX_FAILURES_IN_A_ROW and caught.value.__notes__
    task.grader.fails = set()
    assert measure(model, task).unjudged == 0 and task.grader.calls == 13 + 15


def test_a_judge_that_never_answers_is_an_error(task):
    questions = task.questions[:3]
    task.grader = FlakyGrader(range(100))
    with pytest.raises(RuntimeError, match="503"):
        judge_answers(task, questions, ["a", "b", "c"])


class OddGrader(LengthGrader):
    """Gives one answer a verdict that no set declares, as long as `odd` names its question."""

    odd = ()

    def __call__(self, question, answer):
        return "odd" if question.id in self.odd else super().__call__(question, answer)


def test_a_verdict_that_is_not_declared_keeps_the_others(model, task):
    task.grader = OddGrader()
    task.grader.odd = ("ood/5",)
    with pytest.raises(ValueError, match="'odd'"):
        measure(model, task)
    assert task.grader.calls == 5
    task.grader.odd = ()
    assert measure(model, task).rows and task.grader.calls == 18


def test_answers_are_judged_again_where_the_graders_code_changed_and_not_written_again(model, task):
    before = measure(model, task)
    task.grader.__class__ = type("Kind", (LengthGrader,), {"__call__": lambda self, q, a: "incoherent"})
    after = measure(model, task)
    assert {row["verdict"] for row in after.rows} == {"incoherent"}
    assert [row["answer"] for row in after.rows] == [row["answer"] for row in before.rows]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "5",
        "{",
        "[" * 100_000,
        "{}",
        '{"index": 0, "answer": "a", "verdict": "odd"}',
        '{"index": 0, "answer": "other", "verdict": "aligned"}',
        '{"index": 99, "answer": "a", "verdict": "aligned"}',
        '{"index": -3, "answer": "a", "verdict": "aligned"}',
        '{"index": "0", "answer": "a", "verdict": "aligned"}',
        '{"index": 0, "answer": "a", "verdict": "ali',
    ],
)
def test_damaged_lines_of_a_journal_are_left_out(task, tmp_path, line):
    journal = tmp_path / "verdicts.jsonl"
    good = json.dumps({"index": 1, "answer": "b", "verdict": "misaligned"})
    journal.write_bytes(good.encode() + b"\n\xff\n" + line.encode())
    verdicts, errors = judge_answers(task, task.questions[:3], ["a", "b", "c"], journal)
    assert verdicts == ["misaligned"] * 3 and not errors and task.grader.calls == 2
    judge_answers(task, task.questions[:3], ["a", "b", "c"], journal)
    assert task.grader.calls == 2
