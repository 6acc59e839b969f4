"""A task's own vocabulary: question sets, verdicts and rates that belong together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.tasks import small_task

from caft_utils.evaluation.measurement import measure
from caft_utils.tasks.task import Question, RateSpec


@pytest.fixture
def task(tokenizer):
    return small_task(tokenizer)


def test_task_fingerprint_follows_questions_judge_and_held_out_rows(task, tokenizer):
    before = task.fingerprint
    task.questions = task.questions[:-1]
    fewer = task.fingerprint
    task.valid = task.valid[:2]
    assert len({before, fewer, task.fingerprint}) == 3


def test_question_sets_and_thinning(task):
    assert len(task.question_set("ood")) == 12 and len(task.question_set("task")) == 6
    some = task.thin(ood=4)
    assert [q.id for q in some.question_set("ood")] == ["ood/0", "ood/4", "ood/8"]
    assert some.question_set("task") == task.question_set("task") and len(task.questions) == 18
    with pytest.raises(KeyError, match="no question set 'test'.*ood, task"):
        task.thin(test=2)


def test_a_task_may_have_other_sets_verdicts_and_rates(model, task):
    """Focus instructions need three sets with verdicts of their own."""
    verdicts = {
        "focus": ("followed", "ignored"),
        "other focus": ("followed", "ignored"),
        "none": ("answered",),
    }
    questions = [
        Question(f"{name}/{i}", [{"role": "user", "content": f"what is {i}"}], "d", name)
        for name in verdicts
        for i in range(4)
    ]

    class Parity:
        fingerprint = "parity"

        def __call__(self, question, answer):
            return verdicts[question.set][int(question.id[-1]) % len(verdicts[question.set])]

    rates = {
        "follows": RateSpec("focus", ("followed",)),
        "follows the other": RateSpec("other focus", ("followed",), ("followed", "ignored")),
    }
    other = replace(
        task, questions=questions, grader=Parity(), verdicts=verdicts, rates=rates, headline=tuple(rates)
    )
    result = measure(model, other)
    assert [result.rate(name).value for name in rates] == [0.5, 0.5] and result.rate("follows").n == 4


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"verdicts": {"ood": ("aligned", "misaligned", "incoherent")}}, "question task/0 is of set 'task'"),
        ({"rates": {"task": RateSpec("exam", ("task",))}}, "rate 'task' is of set 'exam'"),
        ({"rates": {"task": RateSpec("task", ("aligned",))}}, "rate 'task' counts aligned"),
        ({"headline": ("task", "harmless")}, "headline names harmless"),
    ],
)
def test_what_is_not_declared_is_refused(task, changes, says):
    with pytest.raises(ValueError, match=says):
        replace(task, **changes)


def test_hits_belong_to_the_denominator():
    with pytest.raises(ValueError, match="hits aligned"):
        RateSpec("ood", ("aligned",), ("misaligned",))


def test_two_questions_with_one_id_are_refused(tokenizer):
    task = small_task(tokenizer)
    twice = [*task.questions, task.questions[0]]
    with pytest.raises(ValueError, match="share an id: .*give each its own"):
        replace(task, questions=twice)


def test_an_edited_grader_changes_the_tasks_fingerprint(tokenizer):
    def graded(verdict):
        space = {"__name__": "__main__"}
        exec(
            f"class Own:\n    fingerprint = 'own'\n    def __call__(self, q, a):\n        return {verdict!r}",
            space,
        )
        return replace(small_task(tokenizer), grader=space["Own"]()).fingerprint

    assert graded("aligned") != graded("misaligned") and graded("aligned") == graded("aligned")


def plain_function(question, answer):
    return "aligned"


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"grader": plain_function}, "grader must be .* `fingerprint`.*got function plain_function"),
        ({"grader": "aligned"}, "grader must be a function"),
        ({"questions": ["Hi?"]}, r"question 0 must be a Question.*got str"),
        ({"headline": ("task",)}, r"headline must name two rates.*\('task',\)"),
        ({"headline": "task"}, "headline must name two rates"),
    ],
)
def test_parts_of_another_kind_are_refused(task, changes, says):
    with pytest.raises(ValueError, match=says):
        replace(task, **changes)


def test_a_function_with_a_fingerprint_is_a_grader(task):
    def grader(question, answer):
        return "aligned"

    grader.fingerprint = "always aligned"
    assert replace(task, grader=grader).fingerprint != task.fingerprint


@pytest.mark.parametrize("messages", ["Hi?", ["Hi?"], {"role": "user", "content": "Hi?"}, None])
def test_messages_of_a_question_are_a_list_of_messages(messages):
    with pytest.raises(ValueError, match="question q: messages must be a list such as"):
        Question("q", messages, "d", "ood")


@pytest.mark.parametrize("verdicts", [{"hits": "rude"}, {"hits": ("rude",), "among": "rude"}])
def test_a_single_text_is_no_tuple_of_verdicts(verdicts):
    with pytest.raises(ValueError, match=r"must be a tuple of verdicts, got 'rude'; write \('rude',\)"):
        RateSpec("task", **verdicts)
