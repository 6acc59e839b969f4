"""Command line: build the notebooks of the exercises in build/exercises, and prove the solutions.

`student` has no solutions, `solutions` has them in place of the stubs, and `nbgrader` has the source of one
assignment for each notebook. Without a kind all three are built, and without NN all notebooks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat import NotebookNode

from caft_utils.course.exercises import building
from caft_utils.course.exercises.reading import Exercise, ExerciseError, exercises_of
from caft_utils.disk import write_atomically

ROOT = Path(__file__).resolve().parents[3]
KINDS: dict[str, Callable[[NotebookNode, list[Exercise]], NotebookNode]] = {
    "student": building.student_notebook,
    "solutions": building.solved_notebook,
    "nbgrader": building.nbgrader_source,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 1 on a malformed exercise or a solution that fails."""
    parser = argparse.ArgumentParser(prog="python -m caft_utils.course.exercises", description=__doc__)
    parser.add_argument(
        "what", nargs="*", metavar="KIND|NN", help=f"{', '.join(KINDS)}, or numbers such as 03"
    )
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="folder of NN_name.ipynb")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="output folder")
    parser.add_argument("--run", action="store_true", help="only run the solved notebooks with FAST on")
    options = parser.parse_args(arguments)
    kinds = [each for each in options.what if each in KINDS] or list(KINDS)
    numbers = [each for each in options.what if each not in KINDS]
    paths = sorted(options.notebooks.resolve().glob("[0-9][0-9]_*.ipynb"))
    if unknown := sorted(set(numbers) - {path.name[:2] for path in paths}):
        parser.error(
            f"{', '.join(unknown)}: expected {', '.join(KINDS)} or the number of a notebook, such as 03"
        )
    paths = [path for path in paths if not numbers or path.name[:2] in numbers]
    if not paths:
        parser.error(f"no notebook NN_name.ipynb in {options.notebooks}")
    try:
        read = {path: nbformat.read(path, as_version=4) for path in paths}
        exercises = {path: exercises_of(notebook, path.name) for path, notebook in read.items()}
    except ExerciseError as error:
        print(error, file=sys.stderr)
        return 1
    if options.run:
        return run_solved(read, exercises, options.build.resolve())
    folder = options.build.resolve() / "exercises"
    for kind in kinds:
        for path, notebook in read.items():
            below = Path("source") / path.name[:2] if kind == "nbgrader" else Path()
            write_notebook(KINDS[kind](notebook, exercises[path]), folder / kind / below / path.name)
        if kind == "nbgrader":
            write_atomically(folder / kind / "nbgrader_config.py", building.NBGRADER_CONFIG)
        print(f"{sum(map(len, exercises.values()))} exercises of {len(read)} notebooks: {folder / kind}")
    return 0


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, nbformat.writes(notebook) + "\n")


def run_solved(read: dict[Path, NotebookNode], exercises: dict[Path, list[Exercise]], build: Path) -> int:
    """Run the solved notebooks with FAST on, and return 1 if a solution does not pass its check or marking.

    A notebook that fails does not keep the others from running.
    """
    from caft_utils.course.tutorial.runner import run_all

    os.environ.setdefault("CAFT_STORE", str(build / "store"))
    os.environ.setdefault("PLOTLY_RENDERER", "plotly_mimetype")  # no pictures, no embedded library
    failed = []
    with TemporaryDirectory(prefix="caft-exercises-") as folder:
        for path, notebook in read.items():
            solved = Path(folder) / path.name
            write_notebook(building.proven_notebook(notebook, exercises[path]), solved)
            (run,) = run_all([solved], build / "exercises" / "executed", {"FAST": True}, fork_kernels=True)
            said = "pass" if run.status == "done" else "FAIL"
            print(f"{path.stem}: {len(exercises[path])} solutions {said}, {run.seconds:.0f} s", flush=True)
            if run.status != "done":
                failed.append(run.error)
    print("\n".join(failed) or "All solutions pass their checks and marking.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
