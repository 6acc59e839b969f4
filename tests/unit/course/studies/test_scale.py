"""The command line of the study of full sizes: its rows, and the cost of an error."""

from __future__ import annotations

import json

import torch

from caft_utils.course.studies import full_size, scale
from caft_utils.course.studies.scale import main

SMALL = ["--shape", "tiny", "--device", "cpu", "--dtype", "float32", "--steps", "2", "--tokens", "300"]


def test_the_command_writes_its_rows_and_an_error_costs_one(tmp_path, monkeypatch, capsys):
    def broken(*args):
        raise torch.OutOfMemoryError("too small")

    monkeypatch.setattr(full_size, "_training", broken)
    assert main([*SMALL, "--conditions", "training", "reading", "--out", str(tmp_path / "rows.json")]) == 1
    first, second = json.loads((tmp_path / "rows.json").read_text())
    assert first["error"] == "OutOfMemoryError: too small" and second["tokens"] >= 300
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["--shape", "70B"]) == 1 and "32B" in capsys.readouterr().err


def test_several_shapes_run_in_processes_of_their_own(tmp_path, monkeypatch):
    """The second one is no shape that its process knows."""
    monkeypatch.setattr(scale, "all_shapes", lambda: {"tiny": None, "huge": None})
    arguments = ["--shape", "tiny", "huge", *SMALL[2:], "--conditions", "reading"]
    assert main([*arguments, "--out", str(tmp_path / "rows.json")]) == 1
    first, second = json.loads((tmp_path / "rows.json").read_text())
    assert first["model"] == "tiny" and first["pca"] > 0
    assert second == {"model": "huge", "error": "its process ended with status 1"}
