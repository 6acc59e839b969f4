"""Two processes measure one experiment: who does what, and what is left when one fails."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest
import torch
from helpers.sharing import CELLS, fail, measure

from caft_utils.course.helper_processes import helpers
from caft_utils.course.studies.experiment import Experiment
from caft_utils.store import default_store

TOY = Experiment("focus", "toy")


def test_a_helper_takes_some_of_the_cells_and_says_nothing(capfd):
    before = torch.get_num_threads()
    with helpers(TOY, 2, measure):
        until = time.monotonic() + 60
        while not list(default_store().keys("toy")) and time.monotonic() < until:
            time.sleep(0.1)  # until the helper has measured something
        rows = measure(TOY)
        assert torch.get_num_threads() == max(1, before // 2)
    assert torch.get_num_threads() == before
    assert sorted(row["cell"] for row in rows) == list(range(CELLS))
    assert any(row["process"] != os.getpid() for row in rows)
    assert capfd.readouterr().out.count("a helper's words") == 1


def test_what_a_failed_helper_leaves_is_measured_here(capfd):
    with helpers(TOY, 2, fail):
        (helper,) = multiprocessing.active_children()
        helper.join(60)
        assert {row["process"] for row in measure(TOY)} == {os.getpid()}
    assert "RuntimeError: a helper that fails" in capfd.readouterr().err


def test_helpers_end_with_the_block():
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), helpers(TOY, 3, measure):
        raise KeyboardInterrupt
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("study", ["engines", "windows", "published fakers"])
def test_a_study_whose_parts_are_not_shared_is_measured_by_one(study):
    with helpers(Experiment(study, "classroom"), 1):
        assert not multiprocessing.active_children()
    with pytest.raises(ValueError, match=f"'{study}' runs in one process; got processes=2"):
        with helpers(Experiment(study, "classroom"), 2):
            pass


def test_processes_that_make_no_sense(monkeypatch):
    with pytest.raises(ValueError, match="processes"):
        with helpers(TOY, 0):
            pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes run already; got processes=2 for each"):
        with helpers(TOY, 2):
            pass
