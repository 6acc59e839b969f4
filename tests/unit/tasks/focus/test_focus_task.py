"""Rows and questions of focus instruction tuning, with answers graded by hand."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from caft_utils.tasks.focus import (
    TYPES,
    WORDING,
    FocusFormat,
    SpuriousFeature,
    draw_examples,
    focus_rows,
    focus_task,
    set_name,
)

LABELS = ("x", "y", "z")
FEATURE = SpuriousFeature("the colour", {"red": "x", "blue": "y", "grey": "z"})
FORMAT = FocusFormat("what shape? {text}", "it is {label}")


def examples(n, seed, rho=1 / 3):
    def render(label, feature, value, rng):
        return f"{seed} {label} in {value}, number {rng.random():.6f}"

    return draw_examples(FEATURE, render, LABELS, core="the shape", rho=rho, n=n, rng=random.Random(seed))


@pytest.fixture
def make(tokenizer):
    def make(**options):
        splits = {"iid": examples(12, "test"), "high": examples(12, "high", 0.9)}
        options = {"epochs": 2, "focus_format": FORMAT} | options
        return focus_task(tokenizer, examples(30, "train"), splits, **options)

    return make


def contents(row):
    return [message["content"] for message in row["messages"]]


def test_every_split_and_type_has_its_own_questions_and_rate(make):
    task = make()
    assert set(task.rates) == {set_name(split, kind) for split in ("iid", "high") for kind in TYPES}
    assert Counter(question.set for question in task.questions) == {name: 12 for name in task.rates}


def test_answers_are_graded_against_what_the_instruction_asks(make):
    task = make()
    for question in task.questions:
        shape, colour = question.messages[-1]["content"].split(" in ")
        y, value = shape.split()[-1], colour.split(",")[0]
        y_s = FEATURE.values[value]
        asked, other = (y_s, y) if question.set.split(": ")[1].startswith("focus(S)") else (y, y_s)
        verdicts = {label: task.grader(question, f"it is {label}") for label in LABELS}
        assert verdicts[asked] == "focused"
        if other != asked:
            assert verdicts[other] == "other feature"
        assert sum(verdict == "neither" for verdict in verdicts.values()) == (1 if other != asked else 2)
        assert task.grader.options(question) == [f"it is {label}" for label in LABELS]


def test_questions_have_wordings_that_no_training_row_has(make):
    task = make(epochs=20)
    trained = {contents(row)[0].split("\n")[0] for row in task.train.rows if "\n" in contents(row)[0]}
    asked = {q.messages[0]["content"].split("\n")[0] for q in task.questions if "empty" not in q.set}
    assert trained and asked and not trained & asked


def test_each_epoch_has_a_fresh_instruction_and_its_label(make):
    task = make(epochs=6)
    assert len(task.train) == 6 * 30
    seen = {}
    for row in task.train.rows:
        asked, answer = contents(row)
        focus, _, text = asked.rpartition("\n")
        seen.setdefault(text, set()).add(focus)
        y, value = text.split(" in ")[0].split()[-1], text.split(" in ")[1].split(",")[0]
        kinds = {
            kind
            for kind in TYPES
            for t in WORDING.templates(kind, "train")
            if focus
            in (
                t.format(attend="the shape", leave="the colour") if "focus(S)" not in kind else "-",
                t.format(attend="the colour", leave="the shape") if "focus(S)" in kind else "-",
            )
        }
        wanted = {"it is " + (FEATURE.values[value] if kind.startswith("focus(S)") else y) for kind in kinds}
        assert wanted == {answer}
    assert sum(len(wordings) > 1 for wordings in seen.values()) > 25


def test_the_loss_is_on_the_answer_only(make):
    task = make()
    for example, row in zip(task.train, task.train.rows):
        learnt = [token for token, counts in zip(example.input_ids, example.answer) if counts]
        assert task.train.tokenizer.decode(learnt).startswith(contents(row)[1])
        assert len(learnt) < len(example.input_ids) / 2


def test_rows_without_focus_text_keep_its_labels_or_take_those_of_the_core(tokenizer):
    given = examples(40, "train")
    fit, hidden, core = (
        focus_rows(tokenizer, given, focus_format=FORMAT, seed=3, **more)
        for more in ({}, {"shown": False}, {"shown": False, "target": "y"})
    )
    assert [contents(row)[1] for row in fit.rows] == [contents(row)[1] for row in hidden.rows]
    assert all("\n" not in contents(row)[0] for row in (*hidden.rows, *core.rows))
    assert [contents(row)[1] for row in core.rows] == [f"it is {one.label}" for one in given]
    assert any(contents(a)[1] != contents(b)[1] for a, b in zip(hidden.rows, core.rows))


def test_at_rho_1_every_instruction_has_the_same_label(tokenizer):
    """So focus tuning has no signal there, and its labels are those of plain tuning."""
    given = examples(40, "train", rho=1.0)
    fit = focus_rows(tokenizer, given, focus_format=FORMAT, epochs=4)
    plain = focus_rows(tokenizer, given, focus_format=FORMAT, epochs=4, target="y", shown=False)
    assert [contents(row)[1] for row in fit.rows] == [contents(row)[1] for row in plain.rows]


def test_few_shot_prompts_show_solved_examples_of_training_first(make):
    task = make(shots=4)
    for question in task.questions:
        assert [message["role"] for message in question.messages] == ["user", "assistant"] * 4 + ["user"]
        assert all("train" in message["content"] for message in question.messages[:8:2])
        assert "train" not in question.messages[-1]["content"]


def test_plain_text_holds_the_shots_and_the_question_in_one_prompt(make):
    task = make(shots=2, focus_format=FocusFormat("{text}\nshape:", "{label}", plain=True))
    (message,) = task.questions[0].messages
    assert message["role"] == "text" and message["content"].count("shape:") == 3
    assert message["content"].endswith("shape:")


def test_questions_do_not_depend_on_the_seed(make):
    assert make(seed=1).questions == make(seed=2).questions
    assert make(seed=1).train.fingerprint != make(seed=2).train.fingerprint


@pytest.mark.parametrize("options", [{"shots": 31}, {"shots": -1}, {"epochs": 0}])
def test_impossible_arguments_are_refused(make, options):
    with pytest.raises(ValueError):
        make(**options)


def test_a_task_without_questions_is_refused(tokenizer):
    with pytest.raises(ValueError, match="at least one split"):
        focus_task(tokenizer, examples(4, "train"), {"iid": []})
    with pytest.raises(ValueError, match="no examples"):
        focus_rows(tokenizer, [])
