"""Read the exercises of a notebook, which is their one source.

An exercise is four cells in a row:

1. Markdown whose last heading is `## Exercise N: title (easy|medium|hard, M minutes)`,
2. a code cell tagged `exercise`, the stub that the student edits,
3. a code cell tagged `exercise-check`,
4. Markdown with the collapsed blocks Hint (any number), Solution (one) and Marking (at most one). The Python
   block of the solution replaces the stub. That of the marking runs after the check, and students do not
   get it.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

STUB, CHECK = "exercise", "exercise-check"
HEADING = re.compile(r"^##+ Exercise\b(.*)$", re.M)
FORM = re.compile(r" (\d+): (\S.*) \((easy|medium|hard), (\d+) minutes?\)")
BLOCK = re.compile(r"<details><summary>(Hint|Solution|Marking)</summary>(.*?)</details>\n?", re.S)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.S | re.M)
POINTS = {"easy": 1, "medium": 2, "hard": 3}


class ExerciseError(ValueError):
    """An exercise in a notebook does not have the form of exercises."""


@dataclass(frozen=True)
class Exercise:
    """One exercise. `at` is the index of its stub; the check and the blocks are the next two cells."""

    number: int
    title: str
    difficulty: str
    minutes: int
    at: int
    stub: str
    check: str
    solution: str
    marking: str

    @property
    def points(self) -> int:
        """Return 1, 2 or 3 for easy, medium or hard."""
        return POINTS[self.difficulty]


def read_exercises(path: Path) -> list[Exercise]:
    """Return the exercises of a notebook file in order.

    Raises:
        ExerciseError: one of them is malformed; the text names the file, the exercise and what to do.
    """
    return exercises_of(nbformat.read(path, as_version=4), path.name)


def exercises_of(notebook: NotebookNode, name: str) -> list[Exercise]:
    """Return the exercises of a notebook in order; `name` is for messages. See `read_exercises`."""
    headings, cells = _headings(notebook, name), notebook.cells
    numbers = [int(match[1]) for match in headings.values()]
    if numbers != list(range(1, len(numbers) + 1)):
        twice = sorted({number for number in numbers if numbers.count(number) > 1})
        what = f"exercise {twice[0]} is there twice" if twice else f"the exercises are numbered {numbers}"
        raise ExerciseError(f"{name}: {what}. Number them 1 to {len(numbers)}, in order.")
    found = [_exercise(cells, i + 1, match, name) for i, match in headings.items()]
    read = {(each.at + i, tag) for each in found for i, tag in enumerate((STUB, CHECK))}
    for i, cell in enumerate(cells):
        for tag in (STUB, CHECK):
            if _has(cell, tag) and (i, tag) not in read:
                raise ExerciseError(
                    f"{name}: cell {i} is tagged `{tag}` and belongs to no exercise. Remove it, or write a "
                    "heading '## Exercise N: title (easy, 5 minutes)', the stub and the check, in this order."
                )
    return found


def _headings(notebook: NotebookNode, name: str) -> dict[int, re.Match]:
    """Return {index of a Markdown cell: its heading, taken apart}."""
    headings = {}
    for i, cell in enumerate(notebook.cells):
        found = HEADING.findall(cell.source) if cell.cell_type == "markdown" else []
        if len(found) > 1:
            many = f"cell {i} has the headings of {len(found)} exercises"
            raise ExerciseError(f"{name}: {many}. Use a cell for each.")
        for rest in found:
            headings[i] = FORM.fullmatch(rest)
            if headings[i] is None:
                raise ExerciseError(
                    f"{name}: the heading 'Exercise{rest}' does not have the form "
                    "'## Exercise N: title (easy|medium|hard, M minutes)'."
                )
    return headings


def _exercise(cells: list[NotebookNode], at: int, heading: re.Match, name: str) -> Exercise:
    number, title, difficulty, minutes = heading.groups()
    where = f"{name}, exercise {number}"
    for i, (tag, what) in enumerate(((STUB, "its stub"), (CHECK, "its check"))):
        if at + i >= len(cells) or not _has(cells[at + i], tag):
            raise ExerciseError(f"{where}: cell {at + i} must be a code cell tagged `{tag}`, {what}.")
    stub, check = cells[at].source, cells[at + 1].source
    notes = cells[at + 2] if at + 2 < len(cells) else None
    text = notes.source if notes is not None and notes.cell_type == "markdown" else ""
    blocks: dict[str, list[str]] = {"Hint": [], "Solution": [], "Marking": []}
    for title_of_block, body in BLOCK.findall(text):
        blocks[title_of_block].append(body)
    if len(blocks["Solution"]) != 1:
        raise ExerciseError(
            f"{where}: expected one solution, found {len(blocks['Solution'])}. Write <details>"
            f"<summary>Solution</summary> with a ```python block in the Markdown cell {at + 2}, after it."
        )
    if len(blocks["Marking"]) > 1:
        raise ExerciseError(f"{where}: expected at most one block Marking, found {len(blocks['Marking'])}.")
    solution = _code(blocks["Solution"][0], f"{where}: the solution")
    marking = _code(blocks["Marking"][0], f"{where}: the marking") if blocks["Marking"] else ""
    for code, what in ((stub, "the stub"), (check, "the check")):
        _parse(code, f"{where}: {what}")
    if solution.strip() == stub.strip():
        raise ExerciseError(f"{where}: the stub is its own solution. Leave out what the student shall write.")
    if not re.search(rf"\bchecking\(\s*{number}\b", check):
        raise ExerciseError(f"{where}: the check must use `with checking({number}) as expect:`.")
    return Exercise(int(number), title, difficulty, int(minutes), at, stub, check, solution, marking)


def _code(body: str, where: str) -> str:
    found = PYTHON.findall(body)
    if len(found) != 1:
        raise ExerciseError(f"{where} has {len(found)} ```python blocks. It must have one.")
    _parse(found[0], where)
    return found[0].rstrip("\n")


def _parse(code: str, where: str) -> None:
    try:
        ast.parse(code)
    except SyntaxError as error:
        raise ExerciseError(f"{where} is not Python: {error.msg} in its line {error.lineno}.") from None


def _has(cell: NotebookNode, tag: str) -> bool:
    return cell.cell_type == "code" and tag in cell.metadata.get("tags", [])
