"""A grid of measurements: every cell once, kept when a run dies, and merged by name."""

from __future__ import annotations

import pytest

from caft_utils.course.grid import run_grid
from caft_utils.course.records import machine_name
from caft_utils.evaluation.measurement import Result
from caft_utils.tasks.choice import RATES

CELLS = [(setting, method, seed) for setting in ("x", "y") for method in ("plain", "CAFT") for seed in (0, 1)]


class Lab:
    """Measures by a rule; dies at the cell named."""

    def __init__(self, dies_at=None):
        self.asked, self.dies_at = [], dies_at

    def __call__(self, setting, method, seed):
        if (setting, method, seed) == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append((setting, method, seed))
        verdict = "right" if method == "CAFT" else "wrong"
        run = f"{method} {seed}"
        return Result(
            [{"set": "ood", "question": i, "run": run, "verdict": verdict} for i in range(4)],
            run,
            1.0,
            RATES,
        )


def test_a_killed_run_goes_on():
    first, second = Lab(dies_at=CELLS[3]), Lab()
    with pytest.raises(KeyboardInterrupt):
        run_grid(CELLS, first, key={"model": "m"}, progress=False)
    assert first.asked == CELLS[:3]
    grid = run_grid(CELLS, second, key={"model": "m"}, progress=False)
    assert second.asked == CELLS[3:] and list(grid.results) == CELLS
    assert grid.total_seconds == sum(grid.seconds.values()) > 0 and set(grid.seconds) == set(CELLS)
    assert set(grid.machines) == set(CELLS) and set(grid.machines.values()) == {machine_name()}
    assert run_grid(CELLS, Lab(dies_at=CELLS[0]), key={"model": "m"}, progress=False) == grid  # all is read
    other = Lab()
    run_grid(CELLS[:2], other, key={"model": "n"}, progress=False)
    assert other.asked == CELLS[:2]  # another key, another grid


def test_progress_counts_what_was_there(capsys):
    run_grid(CELLS[:4], Lab(), key={}, progress=False)
    assert capsys.readouterr().err == ""
    run_grid(CELLS, Lab(), key={}, progress=True)
    assert "8/8" in capsys.readouterr().err


def test_seeds_are_merged():
    merged = run_grid(CELLS, Lab(), key={}, progress=False).merged((0, 1))
    assert list(merged) == [("x", "plain"), ("x", "CAFT"), ("y", "plain"), ("y", "CAFT")]
    rate = merged["x", "CAFT"].rate("ood_accuracy")
    assert rate.value == 1 and rate.n == 8
    assert merged["x", "plain"].rate("ood_accuracy").value == 0


def test_a_cell_named_twice_is_refused():
    with pytest.raises(ValueError, match="named twice: .*'x', 'plain', 0"):
        run_grid([*CELLS, CELLS[0]], Lab(), key={})


def test_a_look_at_a_grid_measures_nothing():
    run_grid(CELLS[:3], Lab(), key={"look": 1}, progress=False)
    lab = Lab()
    found = run_grid(CELLS, lab, key={"look": 1}, progress=False, skip_missing=True)
    assert list(found.results) == CELLS[:3] and not lab.asked


def test_the_key_may_depend_on_the_cell():
    def key(setting, method, seed):
        return {"model": setting}

    asked = []
    for changed in (key, key, lambda setting, method, seed: {"model": setting + "2" * (setting == "y")}):
        lab = Lab()
        run_grid(CELLS, lab, key=changed, progress=False)
        asked.append(lab.asked)
    assert asked == [CELLS, [], [cell for cell in CELLS if cell[0] == "y"]]


def test_a_grid_refuses_processes_that_would_wait_for_each_other(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    lab = Lab()
    with pytest.raises(RuntimeError, match="launcher.*without one"):
        run_grid(CELLS, lab, key={}, progress=False)
    assert not lab.asked
