"""Solutions pass, stubs fail, every stated number is carried, and the tutorial keeps to its times.

PART=stored does not run the tutorial again, and reads its times from the record.
"""

from __future__ import annotations

import os

import nbformat
import pytest
from helpers.paths import REPOSITORY

from caft_utils.course import stated_numbers
from caft_utils.course.exercises.__main__ import main
from caft_utils.course.exercises.reading import read_exercises
from caft_utils.course.records import load_record, save_record
from caft_utils.course.tutorial.progress import minutes_of
from caft_utils.course.tutorial.stamp import stale_reasons

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))
JOBS = 2


@pytest.fixture(scope="module")
def times(tmp_path_factory) -> dict[str, float]:
    """Return {notebook: seconds} of a tutorial with an empty store, and its length as "whole tutorial"."""
    if os.environ.get("PART") != "stored":
        from caft_utils.course.tutorial.runner import run_all

        folder = tmp_path_factory.mktemp("course")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CAFT_STORE", str(folder / "store"))
            runs = run_all(NOTEBOOKS, folder / "executed", {}, jobs=JOBS, fork_kernels=True)
        assert [run.error for run in runs if run.status != "done"] == []
        whole = 60 * minutes_of(runs)
        seconds = {run.path.stem: run.seconds for run in runs} | {"whole tutorial": whole}
        rows = [
            {"model": "classroom models", "condition": name, "seconds": round(value), "jobs": JOBS}
            for name, value in seconds.items()
        ]
        save_record("course", rows, seconds=whole)
    return {row["condition"]: row["seconds"] for row in load_record("course")["rows"]}


def test_all_solutions_pass_in_their_notebooks():
    assert main(["--run"]) == 0


def test_all_stubs_fail_in_the_recorded_notebooks():
    answered, count = [], 0
    for path in NOTEBOOKS:
        assert stale_reasons(path) == []
        cells = nbformat.read(path, as_version=4).cells
        for exercise in read_exercises(path):
            said = "".join(output.get("text", "") for output in cells[exercise.at + 1].outputs)
            count += 1
            if f"Exercise {exercise.number}: not answered yet" not in said:
                answered.append(f"{path.stem}, exercise {exercise.number}")
    print(f"{count - len(answered)} of {count} stubs are not answered")
    assert not answered


def test_every_stated_number_is_carried():
    assert stated_numbers.main() == 0


def test_each_notebook_takes_five_minutes_at_most(times):
    print("\n".join(f"{name}: {seconds} s" for name, seconds in times.items()))
    assert set(times) == {path.stem for path in NOTEBOOKS} | {"whole tutorial"}
    assert [name for name, seconds in times.items() if seconds > 300 and name != "whole tutorial"] == []


def test_the_tutorial_takes_25_minutes_at_most_from_an_empty_store(times):
    assert times["whole tutorial"] <= 25 * 60
