"""Every solution passes its check and its marking, in the whole notebook run with FAST."""

from __future__ import annotations

from caft_utils.course.exercises.__main__ import main


def test_all_solutions_pass_in_their_notebooks():
    assert main(["--run"]) == 0
