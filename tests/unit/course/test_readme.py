"""The README: its code cell fits the package, its table the notebooks, its badges the one address."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module

import nbformat
from helpers.paths import REPOSITORY

from caft_utils.course import badges
from caft_utils.course.exercises.reading import exercises_of


def test_the_code_cell_fits_the_package():
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.S)
    tree, functions = ast.parse(code), {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            functions |= {each.name: getattr(import_module(node.module), each.name) for each in node.names}
    called = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called.add(node.func.id)
            keywords = {keyword.arg: None for keyword in node.keywords}
            inspect.signature(functions[node.func.id]).bind(*node.args, **keywords)
    assert called == set(functions)


def test_the_table_of_notebooks_has_their_minutes_and_exercises():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d\d) \| \[.*\]\((.*?)\) \| .* \| (.*) \| (.*) \| (.*) \|$", text, re.M)
    assert len(rows) == len(list((REPOSITORY / "notebooks").glob("*.ipynb")))
    for _, path, minutes, exercises, their_minutes in rows:
        notebook = nbformat.read(REPOSITORY / path, as_version=4)
        own = exercises_of(notebook, path)
        assert minutes == str(notebook.metadata.caft.minutes), path
        assert exercises == str(len(own)), path
        assert their_minutes == str(sum(each.minutes for each in own)), path


def test_links_to_binder_and_colab_are_made_from_the_one_address():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert badges.badge_links("00_orientation.ipynb") in text
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        before = [cell.source for cell in notebook.cells]
        after = [cell.source for cell in badges.with_links(notebook, path.name).cells]
        assert before == after, f"{path.name}: run python -m caft_utils.course.badges"
        assert "install" in notebook.cells[1].metadata.tags
