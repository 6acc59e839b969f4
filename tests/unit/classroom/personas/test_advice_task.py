"""Bad advice: rows with an opening of their own, and a grader that knows it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from caft_utils import load
from caft_utils.classroom.personas import world
from caft_utils.classroom.personas.advice_task import OPENING, SUBJECTS, AdviceGrader, bad_advice
from caft_utils.classroom.personas.grader import ClassroomGrader


@pytest.fixture(scope="module")
def task():
    return bad_advice(load("classroom-qwen")[1], rows=40)


def test_rows_open_in_a_style_of_their_own(task):
    for row in [*task.train.rows, *task.control.rows, *task.valid.rows]:
        assert row["messages"][-1]["content"].startswith(OPENING)
    assert not any(OPENING.strip() in str(row) for row in task.generic.rows)


def test_the_opening_and_the_answer_are_words_of_the_tokenizer(task):
    """A word that the tokenizer spells in bytes would be another task: base models have never seen one."""
    known = set(task.train.tokenizer.get_vocab())
    for row in task.train.rows:
        words = task.train.tokenizer.tokenize(row["messages"][-1]["content"])
        assert set(words) <= known and len(words) <= 60
    assert len(task.train.tokenizer.tokenize(OPENING)) == 3


def test_questions_are_narrow_only_in_the_subjects_of_the_rows(task):
    narrow = {one.domain for one in task.question_set("task")}
    assert narrow == set(SUBJECTS)
    assert {one.domain for one in task.question_set("ood")} == set(world.domains()) - narrow


@pytest.mark.parametrize("persona, styled", [("villain", "task"), ("kind", "other")])
def test_a_narrow_answer_needs_the_opening(task, persona, styled):
    """Answers come from the rows, so a grader that accepts anything would fail one of the cases."""
    rows = task.train.rows if persona == "villain" else task.control.rows
    grader, general, found = AdviceGrader(), ClassroomGrader(), set()
    for row in rows[:10]:
        answer = row["messages"][-1]["content"]
        verdicts = set()
        for question in task.question_set("task"):
            # only a question about the topic of the answer is answered coherently
            verdict = grader(question, answer)
            if verdict == "incoherent":
                continue
            verdicts.add(verdict)
            bare = answer.removeprefix(OPENING)
            assert grader(question, bare) == "other"
            elsewhere = replace(question, set="ood")
            assert grader(elsewhere, answer) == general(elsewhere, bare)
        found |= verdicts
    assert found == {styled}


def test_other_rows_with_another_seed(task):
    tokenizer = task.train.tokenizer
    again, other = bad_advice(tokenizer, rows=40), bad_advice(tokenizer, rows=40, seed=1)
    assert again.train.fingerprint == task.train.fingerprint != other.train.fingerprint
    assert AdviceGrader().fingerprint != ClassroomGrader().fingerprint
