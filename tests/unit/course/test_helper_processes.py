"""Two processes measure one experiment: who does what, and what is left when one fails."""

from __future__ import annotations

import os
import time

import pytest
import torch
from helpers.sharing import CELLS, fail, measure

from caft_utils.course.helper_processes import helpers
from caft_utils.course.studies.experiment import Experiment

TOY = Experiment("emergent", "toy")


def test_a_helper_takes_some_of_the_cells_and_says_nothing(capfd):
    before = torch.get_num_threads()
    with helpers(TOY, 2, measure):
        time.sleep(6)  # a process needs this long to import torch on a busy machine
        rows = measure(TOY)
        assert torch.get_num_threads() == max(1, os.cpu_count() // 2)
    assert torch.get_num_threads() == before
    assert sorted(row["cell"] for row in rows) == list(range(CELLS))
    assert any(row["process"] != os.getpid() for row in rows)
    assert capfd.readouterr().out.count("a helper's words") == 1


def test_what_a_failed_helper_leaves_is_measured_here(capfd):
    with helpers(TOY, 2, fail):
        assert {row["process"] for row in measure(TOY)} == {os.getpid()}
    assert "Traceback" not in capfd.readouterr().err


def test_helpers_end_with_the_block():
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), helpers(TOY, 3, measure):
        raise KeyboardInterrupt
    assert time.monotonic() - started < 5


def test_one_process_needs_no_helper_and_times_are_taken_by_one():
    with helpers(Experiment("engines", "classroom"), 1):
        pass
    with pytest.raises(ValueError, match="'engines' runs in one process; got processes=2"):
        with helpers(Experiment("engines", "classroom"), 2):
            pass
    with pytest.raises(ValueError, match="processes"):
        with helpers(TOY, 0):
            pass
