"""The README's code cell: its names exist, and its calls fit their signatures."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module

from helpers.paths import REPOSITORY


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
