"""The command that measures an experiment: its folder, what it refuses, and what a failure leaves."""

from __future__ import annotations

import json

import pytest
from helpers.paths import REPOSITORY

from caft_utils.__main__ import main

EXAMPLE = REPOSITORY / "data" / "experiments" / "emergent.yaml"
ROWS = [{"model": "toy", "condition": "base", "seeds": [0]}, {"model": "toy", "condition": "CAFT"}]


@pytest.fixture
def runs(monkeypatch):
    """The experiments that were run, each with the same rows."""
    seen = []
    monkeypatch.setattr("caft_utils.course.run.run", lambda one: seen.append(one) or ROWS)
    return seen


def test_a_run_has_one_folder(tmp_path, runs, capsys):
    folder = tmp_path / "run"
    assert main(["run", str(EXAMPLE), "--folder", str(folder)]) == 0
    assert [one.study for one in runs] == ["emergent"] and "CAFT" in capsys.readouterr().out
    assert (folder / "experiment.yaml").read_text() == EXAMPLE.read_text()
    assert [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()] == ROWS
    assert set(json.loads((folder / "versions.json").read_text())["packages"]) == {
        "torch",
        "transformers",
        "peft",
    }
    assert main(["run", str(EXAMPLE), "--folder", str(folder)]) == 0  # again, over itself


def test_only_the_main_process_writes_and_prints(tmp_path, runs, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert main(["run", str(EXAMPLE), "--folder", str(tmp_path / "run")]) == 0
    assert len(runs) == 1 and not capsys.readouterr().out
    assert not (tmp_path / "run" / "rows.jsonl").exists()


def test_a_study_that_takes_times_refuses_several_processes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "times.yaml").write_text("study: engines\nmodel: classroom\n")
    assert main(["run", str(tmp_path / "times.yaml"), "--folder", str(tmp_path / "run")]) == 1
    assert "'engines' runs in one process" in capsys.readouterr().err


def test_the_folder_of_another_experiment_is_left_alone(tmp_path, runs, capsys):
    (tmp_path / "experiment.yaml").write_text("study: cues\nmodel: classroom-cues\n")
    assert main(["run", str(EXAMPLE), "--folder", str(tmp_path)]) == 1
    assert not runs and "another experiment" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".yaml"] == ["experiment.yaml"]


def test_a_folder_that_cannot_be_written_costs_no_measurement(tmp_path, runs, capsys):
    (tmp_path / "file").touch()
    assert main(["run", str(EXAMPLE), "--folder", str(tmp_path / "file" / "run")]) == 1
    assert not runs and "move it away" in capsys.readouterr().err


def test_a_number_that_is_no_measurement_is_not_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("caft_utils.course.run.run", lambda one: [{"loss": float("nan")}])
    assert main(["run", str(EXAMPLE), "--folder", str(tmp_path / "run")]) == 1
    assert "nan" in capsys.readouterr().err and not (tmp_path / "run" / "rows.jsonl").exists()


def test_the_command_names_what_is_wrong(tmp_path, capsys):
    assert main(["run", str(tmp_path / "missing.yaml")]) == 1
    assert "missing.yaml" in capsys.readouterr().err
