"""Quizzes: every option has its reason, wrong ones are told without the right one, guessing by form fails."""

from __future__ import annotations

from collections import Counter

import pytest

from caft_utils.course.exercises import check_quiz, checking, require_right
from caft_utils.course.exercises.quiz import FOLDER, load_quiz, quiz_markdown

NUMBERS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
QUESTIONS = [question for number in NUMBERS for question in load_quiz(number)]
RIGHT = {n: question.right for n, question in enumerate(load_quiz("02"), 1)}
WRONG = "c" if RIGHT[1] != "c" else "a"


def said(capsys, answers) -> str:
    with checking(4, "it was learned") as expect:
        check_quiz(expect, "02", answers)
    return capsys.readouterr().out


def test_right_answers_get_their_reasons(capsys):
    text = said(capsys, RIGHT)
    assert text.endswith("Exercise 4: right. It was learned.\n") and text.count(": right. ") == 4
    for question in load_quiz("02"):
        assert question.options[question.right].why in text
    require_right(4)


def test_a_wrong_answer_gets_the_reason_against_it_and_not_the_right_option(capsys):
    text = said(capsys, RIGHT | {1: WRONG})
    first = load_quiz("02")[0]
    assert f"1 ({WRONG}): not this one. {first.options[WRONG].why}" in text
    assert first.options[first.right].why not in text
    assert "Exercise 4: not yet. " in text and "another one for 1" in text
    with pytest.raises(AssertionError, match="not yet"):
        require_right(4)


def test_part_of_the_answers_is_told_and_does_not_pass(capsys):
    text = said(capsys, {1: RIGHT[1], 2: None, 3: None})
    assert "1 (" in text and "Exercise 4: not answered yet (answers gives nothing so far)" in text


@pytest.mark.parametrize("answers, words", [({1: "z"}, "1: one of a, b, c"), ("bac", "answers = {1: letter")])
def test_an_answer_of_another_form_is_named(capsys, answers, words):
    assert words in said(capsys, answers)


def test_capital_letters_count(capsys):
    assert "Exercise 4: right" in said(capsys, {n: f" {letter.upper()}" for n, letter in RIGHT.items()})


def test_every_notebook_has_three_questions_whose_form_gives_nothing_away():
    assert NUMBERS == [f"{n:02}" for n in range(16)]
    assert len(QUESTIONS) == 48 and all(list(question.options) == ["a", "b", "c"] for question in QUESTIONS)
    assert all(count == 16 for count in Counter(question.right for question in QUESTIONS).values())
    for number in NUMBERS:
        assert len({question.right for question in load_quiz(number)}) == 3
    longest = [max(q.options, key=lambda letter: len(q.options[letter].text)) == q.right for q in QUESTIONS]
    assert sum(longest) <= 24, "the longest option is the right one too often"


def test_the_markdown_has_questions_and_options_and_no_reason():
    questions = load_quiz("02")
    text = quiz_markdown(questions)
    for question in questions:
        assert question.text in text
        for letter, option in question.options.items():
            assert f"- ({letter}) {option.text}" in text and option.why not in text


@pytest.mark.parametrize(
    "yaml, words",
    [
        ("- question: q\n  right: a\n  options: {a: {text: t}}", "90.yaml, question 1: expected"),
        ("- question: q\n  options: {a: {text: t, why: w}}", "90.yaml, question 1: expected"),
        ("- question: q\n  right: b\n  options: {a: {text: t, why: w}}", "right is 'b', not one of a"),
    ],
)
def test_a_malformed_quiz_is_named(tmp_path, yaml, words):
    (tmp_path / "90.yaml").write_text(yaml)
    with pytest.raises(ValueError, match=words):
        load_quiz("90", tmp_path)
