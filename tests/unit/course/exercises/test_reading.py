"""Exercises of a notebook: what is read, and an error that names what is wrong with a malformed one."""

from __future__ import annotations

import pytest
from helpers.exercises import CHECK, STUB, code, exercise_notebook

from caft_utils.course.exercises.reading import ExerciseError, exercises_of


def test_what_is_read():
    first, second = exercises_of(exercise_notebook(), "tiny")
    assert (first.number, first.title, first.difficulty, first.minutes, first.points) == (
        1,
        "twice",
        "easy",
        1,
        1,
    )
    assert (first.at, first.stub, first.check) == (3, STUB, CHECK)
    assert first.solution == "def double(x):\n    return 2 * x"
    assert first.marking == "assert double(-1.5) == -3"
    assert (second.number, second.points, second.solution, second.marking) == (2, 3, "answer = 3", "")


def changed(**new):
    """Return a change of the notebook: `cell_5="text"` replaces the source of cell 5."""

    def change(notebook):
        for name, text in new.items():
            notebook.cells[int(name.removeprefix("cell_"))].source = text

    return change


def without(index):
    return lambda notebook: notebook.cells.pop(index)


def retagged(index, *tags):
    return lambda notebook: notebook.cells[index].metadata.update(tags=list(tags))


SOLUTION = "<details><summary>Solution</summary>\n{}\n</details>\n"


@pytest.mark.parametrize(
    "change, words",
    [
        (changed(cell_2="## Exercise 1: twice"), "'Exercise 1: twice' does not have the form"),
        (changed(cell_2="## Exercise 1: twice (trivial, 1 minute)"), "easy|medium|hard"),
        (retagged(1, "exercise"), "cell 1 is tagged `exercise` and belongs to no exercise"),
        (changed(cell_6="## Exercise 1: again (easy, 2 minutes)"), "exercise 1 is there twice"),
        (changed(cell_6="## Exercise 3: on (easy, 2 minutes)"), "are numbered [1, 3]. Number them 1 to 2"),
        (
            changed(cell_2="## Exercise 1: a (easy, 1 minute)\n## Exercise 2: b (easy, 1 minute)"),
            "2 exercises",
        ),
        (without(3), "exercise 1: cell 3 must be a code cell tagged `exercise`, its stub"),
        (retagged(4), "exercise 1: cell 4 must be a code cell tagged `exercise-check`"),
        (retagged(1, "exercise-check"), "cell 1 is tagged `exercise-check` and belongs to no exercise"),
        (without(9), "exercise 2: expected one solution, found 0"),
        (changed(cell_5="Nothing."), "exercise 1: expected one solution, found 0"),
        (changed(cell_5=SOLUTION.format("Just do it.")), "the solution has 0 ```python blocks"),
        (changed(cell_5=SOLUTION.format("```python\nx = 1\n```") * 2), "expected one solution, found 2"),
        (changed(cell_5=SOLUTION.format("```python\ndef f(:\n```")), "the solution is not Python"),
        (changed(cell_3="def f(:"), "exercise 1: the stub is not Python: "),
        (changed(cell_4="with checking(1) as"), "exercise 1: the check is not Python"),
        (changed(cell_4="pass"), "the check must use `with checking(1) as expect:`"),
        (changed(cell_3="def double(x):\n    return 2 * x"), "the stub is its own solution"),
    ],
)
def test_a_malformed_exercise_is_named(change, words):
    notebook = exercise_notebook()
    change(notebook)
    with pytest.raises(ExerciseError) as error:
        exercises_of(notebook, "tiny.ipynb")
    assert str(error.value).startswith("tiny.ipynb") and words in str(error.value)


def test_a_notebook_without_exercises_has_none():
    notebook = exercise_notebook()
    notebook.cells = [*notebook.cells[:2], code("1 + 1")]
    assert exercises_of(notebook, "tiny") == []
