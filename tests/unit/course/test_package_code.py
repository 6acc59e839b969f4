"""Which modules a source uses: all that it can reach, and no others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from caft_utils.course.package_code import ONLY_SHOWN_TO, PACKAGE, used_code, used_files

NOTEBOOKS = PACKAGE.parent / "notebooks"

FILES = {
    "__init__.py": (
        "from lib.lazy_imports import lazy_names\n"
        '_HOME = {"shapes.cube": ("volume",)}\n'
        "__getattr__ = lazy_names(__name__, _HOME)\n"
    ),
    "lazy_imports.py": "from importlib import import_module\nimport_module(name)\n",
    "shapes/__init__.py": "",
    "shapes/cube.py": "def volume():\n    from lib.numbers import power\n",
    "shapes/cube.yaml": "side: 1\n",
    "shapes/words/names.yaml": "cube: der\n",
    "shapes/sphere.py": "if TYPE_CHECKING:\n    from lib.unused import X\nelse:\n    import lib.pi as pi\n",
    "numbers.py": "power = 3\n",
    "pi.py": "pi = 3\n",
    "unused.py": "",
    "launched.py": 'command = ["-m", "lib.child"]\n',
    "child.py": "",
    "plots/__init__.py": "from lib.numbers import power\n",
    "dynamic.py": "import_module(f'lib.{name}')\n",
    "other/__init__.py": "",
    "other/data.yaml": "",
}


@pytest.fixture
def lib(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "lib"


def names(source, lib):
    return [path.relative_to(lib).as_posix() for path in used_files([source], lib)]


TOP = ["__init__.py", "lazy_imports.py"]
CUBE = [
    *TOP,
    "numbers.py",
    "shapes/__init__.py",
    "shapes/cube.py",
    "shapes/cube.yaml",
    "shapes/words/names.yaml",
]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1", []),
        ("from lib.numbers import power", [*TOP, "numbers.py"]),
        ("def f():\n    if a:\n        import lib.numbers as n", [*TOP, "numbers.py"]),
        ("from lib.shapes.cube import volume", CUBE),
        ("from lib.shapes import cube", CUBE),
        ("from lib import volume", CUBE),
        ("from lib.launched import command", [*TOP, "child.py", "launched.py"]),
        ("from lib import plots", []),
    ],
)
def test_a_source_uses_what_it_imports_directly_or_not(lib, source, expected):
    assert names(source, lib) == sorted(expected)


def test_imports_for_type_checking_do_not_count(lib):
    used = names("from lib.shapes import sphere", lib)
    assert "pi.py" in used and "unused.py" not in used


@pytest.mark.parametrize(
    "source",
    ["import lib", "from lib import *", "import lib.pi", "from lib import dynamic", "from . import pi"],
)
def test_where_imports_cannot_be_known_all_modules_count(lib, source):
    assert names(source, lib) == sorted(FILES)


def test_a_change_counts_in_used_modules_and_their_yaml_and_nowhere_else(lib):
    source = ["from lib import volume"]
    before = used_code(source, lib)
    for unused in ("unused.py", "plots/__init__.py", "other/data.yaml", "pi.py"):
        (lib / unused).write_text("changed: 1")
        assert used_code(source, lib) == before, unused
    for used in ("numbers.py", "shapes/cube.py", "shapes/__init__.py", "shapes/words/names.yaml"):
        (lib / used).write_text("a = 1")
        assert used_code(source, lib) != before, used
        before = used_code(source, lib)


def test_an_import_that_is_added_to_a_used_module_counts(lib):
    source = ["from lib import volume"]
    used_code(source, lib)
    (lib / "numbers.py").write_text("from lib.unused import anything\n")
    assert "unused.py" in names(source[0], lib)


def test_a_cell_that_cannot_be_parsed_does_not_count(lib):
    used = used_files(["from lib.pi import ", "from lib.numbers import power"], lib)
    assert used == sorted(lib / name for name in [*TOP, "numbers.py"])


def code_cells(number):
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_a_notebook_uses_a_part_of_the_package():
    used = {path.relative_to(PACKAGE).as_posix() for path in used_files(code_cells("05"))}
    assert {"interpret/score/detection.py", "saes/training.py", "residual/__init__.py"} <= used
    assert not used & {
        "course/pages.py",
        "rivals/__init__.py",
        "plots/__init__.py",
        "course/studies/focus.py",
    }


def test_every_module_that_the_imports_of_a_notebook_load_counts():
    imports = [
        line
        for cell in code_cells("05")
        for line in cell.splitlines()
        if line.startswith(("from caft_utils", "import caft_utils"))
    ]
    assert len(imports) > 20
    listing = "import sys, json; print(json.dumps([n for n in sys.modules if n.startswith('caft_utils')]))"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*imports, listing])], capture_output=True, text=True, check=True
    )
    used = used_files(imports)
    for name in json.loads(done.stdout.splitlines()[-1]):
        below = name.removeprefix("caft_utils").lstrip(".")
        if not below.startswith(ONLY_SHOWN_TO):
            place = Path(PACKAGE, *below.split(".") if below else ())
            assert {place / "__init__.py", place.with_suffix(".py")} & set(used), name


def test_no_value_can_come_from_what_is_left_out():
    """Outside the course, one method alone imports figures: it returns the figure of a comparison."""
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "plots" not in path.parts and "caft_utils.plots" in path.read_text(encoding="utf-8")
    }
    assert {name for name in importers if not name.startswith("course/")} == {"evaluation/comparison.py"}
    of_marking = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "exercises" not in path.parts and "caft_utils.course.exercises" in path.read_text(encoding="utf-8")
    }
    assert not {name for name in of_marking if name.startswith("course/studies/")}
