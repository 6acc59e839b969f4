"""Time elapsed and time left."""

from __future__ import annotations

import io

import pytest

from caft_utils.course.tutorial.progress import Progress, Run, minutes_of


def test_time_left_follows_the_plan_then_the_pace(tmp_path):
    runs = [Run(tmp_path / f"0{n}.ipynb", "t", minutes=2, cells=10) for n in range(2)]
    progress = Progress(runs, jobs=1, stream=io.StringIO())
    assert progress.left(30) == 210  # nothing done: four planned minutes less half a minute
    assert Progress(runs, jobs=2, stream=io.StringIO()).left(30) == 90
    runs[0].status, runs[1].status, runs[1].cell = "done", "running", 5  # three planned minutes done
    assert progress.left(90) == pytest.approx(30)
    assert "[2/2] 01" in progress.line() and "cell 6 of 10" in progress.line()


def test_minutes_of_notebooks_side_by_side_are_counted_once(tmp_path):
    first, second, waiting = (Run(tmp_path, "t", 1, 1) for _ in range(3))
    first.began, first.seconds, second.began, second.seconds = 100, 60, 130, 90
    assert minutes_of([first, second, waiting]) == 2
    assert minutes_of([waiting]) == 0
