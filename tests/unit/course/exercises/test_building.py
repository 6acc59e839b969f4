"""The built notebooks: what students do not get, what replaces a stub, and the command."""

from __future__ import annotations

from dataclasses import replace

import nbformat
import pytest
from helpers.exercises import STUB, exercise_notebook

from caft_utils.course.exercises import building
from caft_utils.course.exercises.__main__ import main
from caft_utils.course.exercises.reading import exercises_of


@pytest.fixture
def source():
    notebook = exercise_notebook()
    notebook.cells[4].outputs = [nbformat.v4.new_output("stream", text="Exercise 1: not answered yet")]
    return notebook, exercises_of(notebook, "tiny")


def text_of(notebook) -> str:
    nbformat.validate(notebook)
    return "\n".join(cell.source for cell in notebook.cells)


def test_students_get_stub_check_and_hint_only(source):
    built = building.student_notebook(*source)
    text = text_of(built)
    assert STUB in text and "Add." in text and "More text." in text and "Exercise 2" in text
    assert (
        "Solution" not in text and "return 2 * x" not in text and "Marking" not in text and "-1.5" not in text
    )
    assert len(built.cells) == len(source[0].cells) - 1  # the cell that held a solution alone is gone
    assert not any(cell.get("outputs") for cell in built.cells) and "sources" not in built.metadata.caft
    assert "return 2 * x" in text_of(source[0])  # the source is unchanged


def test_the_solved_notebook_has_the_solutions_in_place_of_the_stubs(source):
    built = building.solved_notebook(*source)
    assert (
        built.cells[3].source == "def double(x):\n    return 2 * x" and built.cells[7].source == "answer = 3"
    )
    assert built.cells[4].source == source[0].cells[4].source


def run(notebook) -> None:
    names: dict = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, "<cell>", "exec"), names)


def test_the_proven_notebook_stops_at_a_wrong_solution(source):
    notebook, exercises = source
    run(building.proven_notebook(notebook, exercises))
    stubs = [replace(each, solution=each.stub) for each in exercises]
    with pytest.raises(AssertionError, match="exercise 1: not answered"):
        run(building.proven_notebook(notebook, stubs))
    cheated = [replace(each, solution="def double(x):\n    return 4") for each in exercises[:1]]
    with pytest.raises(AssertionError):  # the visible check passes, the marking does not
        run(building.proven_notebook(notebook, cheated))


def test_the_command_writes_all_kinds_and_names_what_is_wrong(tmp_path, capsys):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    notebook = exercise_notebook()
    nbformat.write(notebook, notebooks / "90_tiny.ipynb")
    arguments = ["--notebooks", str(notebooks), "--build", str(tmp_path / "build")]
    assert main(arguments) == 0
    folder = tmp_path / "build" / "exercises"
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == {
        "student/90_tiny.ipynb",
        "solutions/90_tiny.ipynb",
        "nbgrader/nbgrader_config.py",
        "nbgrader/source/90/90_tiny.ipynb",
    }
    with pytest.raises(SystemExit):
        main([*arguments, "student", "91"])
    assert "91: expected student, solutions, nbgrader or the number" in capsys.readouterr().err
    notebook.cells.pop(9)
    nbformat.write(notebook, notebooks / "90_tiny.ipynb")
    assert main([*arguments, "student"]) == 1
    assert "90_tiny.ipynb, exercise 2: expected one solution, found 0" in capsys.readouterr().err
