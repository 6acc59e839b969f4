"""Build a notebook for students, the solved notebook, and the source of an nbgrader assignment."""

from __future__ import annotations

import re
from copy import deepcopy

from nbformat import NotebookNode

from caft_utils.course.exercises.reading import BLOCK, Exercise

HIDDEN = "from caft_utils.course.exercises import require_right\n\nrequire_right({number})\n{marking}"
SCHEMA = 3  # of nbgrader's cell metadata

# nbgrader's own stub would be put below ours; the course's notebooks say themselves what is missing.
NBGRADER_CONFIG = """# Settings of nbgrader for the exercises of the course, written by `make exercises`.
c = get_config()  # noqa: F821 - nbgrader provides it
c.CourseDirectory.course_id = "caft"
c.ClearSolutions.code_stub = {"python": ""}
c.ExecutePreprocessor.timeout = 900
c.IncludeHeaderFooter.header = ""
"""


def student_notebook(notebook: NotebookNode, exercises: list[Exercise]) -> NotebookNode:
    """Return the notebook without outputs, solutions and marking."""
    built = _without_outputs(notebook)
    _strip_blocks(built, exercises)
    return built


def solved_notebook(notebook: NotebookNode, exercises: list[Exercise]) -> NotebookNode:
    """Return the notebook without outputs, with each stub replaced by its solution."""
    built = _without_outputs(notebook)
    for each in exercises:
        built.cells[each.at].source = each.solution
    return built


def proven_notebook(notebook: NotebookNode, exercises: list[Exercise]) -> NotebookNode:
    """Return the solved notebook that stops at the first check or marking that its solution does not pass."""
    built = solved_notebook(notebook, exercises)
    for each in exercises:
        built.cells[each.at + 1].source = each.check + "\n\n\n" + hidden_tests(each)
    return built


def nbgrader_source(notebook: NotebookNode, exercises: list[Exercise]) -> NotebookNode:
    """Return the instructor's version of an nbgrader assignment.

    The solution stands below the stub in a region that nbgrader removes, so students keep the stub. The check
    is worth the points of the exercise, and its hidden part fails where the check was not right. The cell of
    the parameters is locked with FAST on, so that marking restores it.
    """
    built = _without_outputs(notebook)
    for cell in built.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = re.sub(r"^FAST = False", "FAST = True", cell.source, flags=re.M)
            cell.metadata["nbgrader"] = _grading("parameters", locked=True)
    for each in exercises:
        stub, check = built.cells[each.at], built.cells[each.at + 1]
        stub.source = f"{each.stub}\n\n\n### BEGIN SOLUTION\n{each.solution}\n### END SOLUTION"
        check.source = f"{each.check}\n### BEGIN HIDDEN TESTS\n{hidden_tests(each)}\n### END HIDDEN TESTS"
        stub.metadata["nbgrader"] = _grading(f"exercise-{each.number}", solution=True)
        name = f"check-{each.number}"
        check.metadata["nbgrader"] = _grading(name, locked=True, points=each.points)
    _strip_blocks(built, exercises)
    return built


def hidden_tests(exercise: Exercise) -> str:
    """Return the code that raises where a solution is not right: the check's verdict, then the marking."""
    return HIDDEN.format(number=exercise.number, marking=exercise.marking).rstrip("\n")


def _without_outputs(notebook: NotebookNode) -> NotebookNode:
    built = deepcopy(notebook)
    for stamp in ("sources", "records"):  # those of a recorded run
        built.metadata.get("caft", {}).pop(stamp, None)
    for cell in built.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return built


def _strip_blocks(notebook: NotebookNode, exercises: list[Exercise]) -> None:
    """Remove solutions and marking, and cells that held nothing else."""
    for each in exercises:
        cell = notebook.cells[each.at + 2]
        cell.source = BLOCK.sub(lambda block: block[0] if block[1] == "Hint" else "", cell.source).strip("\n")
    emptied = {each.at + 2 for each in exercises if not notebook.cells[each.at + 2].source}
    notebook.cells = [cell for i, cell in enumerate(notebook.cells) if i not in emptied]


def _grading(name: str, *, solution: bool = False, locked: bool = False, points: int = 0) -> dict:
    """Return nbgrader's metadata of a cell; one with points is graded."""
    kind = {"grade": points > 0, "solution": solution, "locked": locked, "task": False}
    about = {"grade_id": name, "schema_version": SCHEMA, **kind}
    return about | {"points": points, "cell_type": "code"} if points else about
