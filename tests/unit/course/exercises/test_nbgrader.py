"""nbgrader makes a release from the built source, and marks a right and a wrong submission."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from helpers.exercises import code, exercise_notebook
from helpers.paths import REPOSITORY
from traitlets.config import PyFileConfigLoader

from caft_utils.course.exercises.__main__ import main
from caft_utils.course.exercises.quiz import load_quiz

QUIZ = "answers = {{1: {}, 2: {}, 3: {}}}"
LETTERS = [repr(question.right) for question in load_quiz("02")]
RIGHT = ("def double(x):\n    return x + x", "answer = 3", QUIZ.format(*LETTERS))
# The first passes its check, and not its marking. Of the quiz two of three are right.
WRONG = ("def double(x):\n    return 4", "answer = 2", QUIZ.format(*LETTERS[:2], LETTERS[1]))


def notebook_with_quiz() -> nbformat.NotebookNode:
    notebook = exercise_notebook()
    imported = "from caft_utils.course.exercises import check_quiz, checking\n\n"
    notebook.cells += [
        nbformat.v4.new_markdown_cell("## Exercise 3: three questions (easy, 5 minutes)"),
        code(QUIZ.format(*[None] * 3), "exercise"),
        code(
            f'{imported}with checking(3) as expect:\n    check_quiz(expect, "02", answers)', "exercise-check"
        ),
        nbformat.v4.new_markdown_cell(
            f"<details><summary>Solution</summary>\n\n```python\n{RIGHT[2]}\n```\n\n</details>"
        ),
    ]
    return notebook


def test_a_right_and_a_wrong_submission_get_their_marks(tmp_path, monkeypatch):
    from nbgrader.api import Gradebook
    from nbgrader.apps import NbGraderAPI

    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv(
        "PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )  # for alembic
    notebooks, course = tmp_path / "notebooks", tmp_path / "build" / "exercises" / "nbgrader"
    notebooks.mkdir()
    nbformat.write(notebook_with_quiz(), notebooks / "90_tiny.ipynb")
    assert main(["nbgrader", "--notebooks", str(notebooks), "--build", str(tmp_path / "build")]) == 0
    config = PyFileConfigLoader("nbgrader_config.py", path=str(course)).load_config()
    config.CourseDirectory.root = str(course)
    nbgrader = NbGraderAPI(config=config)

    made = nbgrader.generate_assignment("90")
    assert made["success"], made
    release = course / "release" / "90" / "90_tiny.ipynb"
    text = release.read_text()
    assert "Return twice x" in text
    assert not [hidden for hidden in ("2 * x", "-1.5", "require_right", LETTERS[0]) if hidden in text]

    marked = (("right", RIGHT, {1: 1, 2: 3, 3: 1}), ("wrong", WRONG, {1: 0, 2: 0, 3: 0}))
    for student, answers, marks in marked:
        folder = course / "submitted" / student / "90"
        folder.mkdir(parents=True)
        notebook = nbformat.read(release, as_version=4)
        stubs = [cell for cell in notebook.cells if "exercise" in cell.metadata.get("tags", [])]
        for cell, answer in zip(stubs, answers, strict=True):
            cell.source = answer
        nbformat.write(notebook, folder / release.name)
        graded = nbgrader.autograde("90", student)
        assert graded["success"], graded
        with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
            (submitted,) = book.find_submission("90", student).notebooks
            assert {int(grade.name[-1]): grade.auto_score for grade in submitted.grades} == marks
