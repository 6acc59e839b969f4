"""nbgrader makes a release from the built source, and marks a right and a wrong submission."""

from __future__ import annotations

import os
import subprocess
import sys

import nbformat
from helpers.exercises import exercise_notebook
from helpers.paths import REPOSITORY

from caft_utils.course.exercises.__main__ import main

RIGHT = {3: "def double(x):\n    return x + x", 6: "answer = 3"}
WRONG = {3: "def double(x):\n    return 4", 6: "answer = 2"}  # passes the visible check of exercise 1 only


def test_a_right_and_a_wrong_submission_get_their_marks(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    notebooks, course = tmp_path / "notebooks", tmp_path / "build" / "exercises" / "nbgrader"
    notebooks.mkdir()
    nbformat.write(exercise_notebook(), notebooks / "90_tiny.ipynb")
    assert main(["nbgrader", "--notebooks", str(notebooks), "--build", str(tmp_path / "build")]) == 0
    nbgrader(course, "generate_assignment", "90")
    release = course / "release" / "90" / "90_tiny.ipynb"
    text = release.read_text()
    assert (
        "Return twice x" in text
        and "2 * x" not in text
        and "-1.5" not in text
        and "require_right" not in text
    )
    for student, answers in {"right": RIGHT, "wrong": WRONG}.items():
        folder = course / "submitted" / student / "90"
        folder.mkdir(parents=True)
        notebook = nbformat.read(release, as_version=4)
        stubs = [cell for cell in notebook.cells if "exercise" in cell.metadata.get("tags", [])]
        for cell, answer in zip(stubs, answers.values(), strict=True):
            cell.source = answer
        nbformat.write(notebook, folder / release.name)
    nbgrader(course, "autograde", "90")
    assert marks(course, "right") == {"check-1": 1, "check-2": 3}
    assert marks(course, "wrong") == {"check-1": 0, "check-2": 0}


def nbgrader(course, *arguments: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def marks(course, student: str) -> dict[str, float]:
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        (submitted,) = book.find_submission("90", student).notebooks
        return {grade.name: grade.auto_score for grade in submitted.grades}
