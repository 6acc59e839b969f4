"""Quizzes: three questions at the end of each notebook, with a reason for every option.

    with checking(4, "one axis alone flatters") as expect:
        check_quiz(expect, "07", answers)  # answers = {1: "b", 2: "a", 3: "c"}

`quizzes/NN.yaml` is the source. The notebook shows questions and options as Markdown (`quiz_markdown`, and a
test compares them). Reasons and right letters stay in the file, so a student meets a reason after choosing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from caft_utils.course.exercises.checks import checking

FOLDER = Path(__file__).parent / "quizzes"


@dataclass(frozen=True)
class Option:
    """An option of a question, and why it is right or wrong."""

    text: str
    why: str


@dataclass(frozen=True)
class QuizQuestion:
    """A question, its options by letter, and the letter of the right one."""

    text: str
    options: dict[str, Option]
    right: str


def load_quiz(number: str, folder: Path = FOLDER) -> list[QuizQuestion]:
    """Return the questions of notebook `number` ("07") in order.

    Raises:
        ValueError: the file does not have the form of a quiz; the text names the file and the question.
    """
    path = folder / f"{number}.yaml"
    questions = []
    for n, entry in enumerate(yaml.safe_load(path.read_text(encoding="utf-8")), 1):
        try:
            options = {letter: Option(**about) for letter, about in entry["options"].items()}
            question = QuizQuestion(entry["question"], options, entry["right"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path.name}, question {n}: expected `question`, `right`, and `options` with `text` and "
                f"`why` for each letter; {type(error).__name__}: {error}"
            ) from None
        if question.right not in options:
            letters = ", ".join(map(str, options))
            raise ValueError(f"{path.name}, question {n}: right is {question.right!r}, not one of {letters}.")
        questions.append(question)
    return questions


def quiz_markdown(questions: list[QuizQuestion]) -> str:
    """Return questions and options as the notebook shows them, without reasons."""
    parts = []
    for n, question in enumerate(questions, 1):
        options = [f"- ({letter}) {option.text}" for letter, option in question.options.items()]
        parts.append("\n".join([f"**{n}.** {question.text}", "", *options]))
    return "\n\n".join(parts)


def check_quiz(expect: checking, number: str, answers: dict[int, str | None]) -> None:
    """Print the reason for each chosen option, and go on if all are right.

    Args:
        expect: the check of the exercise.
        number: of the notebook.
        answers: {question, counted from 1: letter}. None counts as not answered.
    """
    questions = load_quiz(number)
    expect.that(isinstance(answers, dict), "answers = {1: letter, ...}", repr(answers), "one letter for each")
    wrong = []
    for n, question in enumerate(questions, 1):
        if (chosen := answers.get(n)) is None:
            continue
        letter = str(chosen).strip().lower()
        letters = f"{n}: one of {', '.join(question.options)}"
        expect.that(letter in question.options, letters, repr(chosen), "answer with the letter alone")
        wrong += [n] if letter != question.right else []
        verdict = "right" if letter == question.right else "not this one"
        print(f"{n} ({letter}): {verdict}. {question.options[letter].why}")
    expect.answered("answers", *(answers.get(n) for n in range(1, len(questions) + 1)))
    again = " and ".join(map(str, wrong))
    expect.that(
        not wrong, "the best option of each question", f"another one for {again}", "read the reasons above"
    )
