"""The exercises of the committed notebooks: well formed, stubs not answered, solutions right.

A check that makes its own inputs is run here. The others need the variables of their notebook: the tests of
the notebooks run their solutions, and here the recorded outputs show that their stubs do not pass.
"""

from __future__ import annotations

import ast
import builtins
import symtable

import nbformat
import pytest
from helpers.paths import REPOSITORY

from caft_utils.course.exercises.building import hidden_tests
from caft_utils.course.exercises.quiz import load_quiz, quiz_markdown
from caft_utils.course.exercises.reading import Exercise, read_exercises
from caft_utils.course.tutorial.stamp import stale_reasons

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))
EXERCISES = [(path, each) for path in NOTEBOOKS for each in read_exercises(path)]


def needs(code: str) -> set[str]:
    """Return the names that this code takes from its notebook."""

    def used(table: symtable.SymbolTable) -> set[str]:
        own = {
            one.get_name() for one in table.get_symbols() if one.is_global() or table.get_type() == "module"
        }
        return own.union(*map(used, table.get_children()))

    module = symtable.symtable(code, "<cells>", "exec")
    assigned = {one.get_name() for one in module.get_symbols() if one.is_assigned() or one.is_imported()}
    return used(module) - assigned - set(dir(builtins))


def whole(exercise: Exercise, answer: str) -> str:
    return "\n".join((answer, exercise.check, hidden_tests(exercise)))


ALONE = [(path, each) for path, each in EXERCISES if not needs(whole(each, each.solution))]


def name(value) -> str:
    return value.stem[:2] if hasattr(value, "stem") else f"exercise-{value.number}"


@pytest.mark.parametrize("path, exercise", ALONE, ids=name)
def test_the_solution_passes_and_the_stub_does_not(path, exercise, capsys):
    exec(compile(whole(exercise, exercise.solution), "<solution>", "exec"), {})
    assert f"Exercise {exercise.number}: right" in capsys.readouterr().out
    with pytest.raises(AssertionError, match=f"exercise {exercise.number}: not answered yet"):
        exec(compile(whole(exercise, exercise.stub), "<stub>", "exec"), {})


@pytest.mark.parametrize("path, exercise", EXERCISES, ids=name)
def test_the_recorded_stub_is_not_answered(path, exercise):
    if stale_reasons(path):
        pytest.skip(f"{path.name} is not recorded; test_recorded_outputs.py says so")
    check = nbformat.read(path, as_version=4).cells[exercise.at + 1]
    text = "".join(output.get("text", "") for output in check.outputs)
    assert f"Exercise {exercise.number}: not answered yet" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_exercises_stand_in_the_path_and_the_last_one_is_the_quiz(path):
    own = [exercise for of, exercise in EXERCISES if of == path]
    cells = nbformat.read(path, as_version=4).cells
    assert 3 <= len(own) <= 6
    assert any(each.at < 2 / 3 * len(cells) for each in own[:-1]), "one stands before the last third"
    quiz = own[-1]
    assert f'check_quiz(expect, "{path.stem[:2]}", answers)' in quiz.check
    questions = load_quiz(path.stem[:2])
    assert cells[quiz.at - 1].source.endswith(quiz_markdown(questions))
    assert ast.literal_eval(quiz.solution.removeprefix("answers = ")) == {
        n: question.right for n, question in enumerate(questions, 1)
    }
