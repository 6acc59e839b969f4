"""Arguments of the command."""

from __future__ import annotations

import pytest

from caft_utils.course.tutorial.__main__ import _jobs


def test_a_recording_has_no_parameters_of_its_own(run, tmp_path, write):
    write("00_toy", "1")
    with pytest.raises(SystemExit):
        run("--record", "--seed", "3")
    for wrong in (("--only", "99"), ("--jobs", "0")):
        with pytest.raises(SystemExit):
            run(*wrong)


def test_a_real_model_has_the_machine_to_itself(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert (_jobs(None), _jobs("classroom"), _jobs("Qwen/Qwen2.5-7B-Instruct")) == (2, 2, 1)
