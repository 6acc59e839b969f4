"""A small notebook with two exercises, for tests of what reads and builds exercises."""

from __future__ import annotations

import nbformat
from nbformat import NotebookNode

STUB = 'def double(x):\n    """Return twice x."""\n    ...  # yours'
CHECK = """from caft_utils.course.exercises import checking

with checking(1, "twice is twice") as expect:
    expect("double(2)", double(2), 4, "add x to itself")"""
NOTES = """<details><summary>Hint</summary>

Add.

</details>
<details><summary>Solution</summary>

```python
def double(x):
    return 2 * x
```

Or add.

</details>
<details><summary>Marking</summary>

```python
assert double(-1.5) == -3
```

</details>

More text."""
SECOND = """<details><summary>Solution</summary>

```python
answer = 3
```

</details>"""


def code(source: str, *tags: str) -> NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


def exercise_notebook() -> NotebookNode:
    """Return a notebook with an easy exercise, which has a marking, and a hard one."""
    markdown = nbformat.v4.new_markdown_cell
    cells = [
        markdown("# 90 · Tiny"),
        code('MODEL = "classroom"\nSEED = 0\nFAST = False', "parameters"),
        markdown("## Exercise 1: twice (easy, 1 minute)\n\nDouble it."),
        code(STUB, "exercise"),
        code(CHECK, "exercise-check"),
        markdown(NOTES),
        markdown("Before it.\n\n### Exercise 2: three (hard, 10 minutes)"),
        code("answer = None", "exercise"),
        code(
            "from caft_utils.course.exercises import checking\n\nwith checking(2) as expect:\n"
            '    expect("answer", answer, 3, "count")',
            "exercise-check",
        ),
        markdown(SECOND),
    ]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "caft": {"sources": "0"}})
