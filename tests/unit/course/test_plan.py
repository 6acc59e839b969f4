"""The plan of an experiment: its numbers, its command, and measured rows."""

from __future__ import annotations

import json

import pytest

from caft_utils.__main__ import main
from caft_utils.course.memory import StepMemory
from caft_utils.course.plan import Workload, cost_plan, lines, measured_training, peak_over_estimate
from caft_utils.course.shapes import shape
from caft_utils.paths import data_path


def test_tokens_calls_time_and_cost_follow_from_the_workload(monkeypatch):
    def stated(one, config, length):
        return StepMemory(100, 50, 10, 5, 10, 40, 20 if config.gradient_checkpointing else 60, 70, 80, 5)

    monkeypatch.setattr("caft_utils.course.plan.step_memory", stated)
    work = Workload(rows=32, length=64, runs=3, answers=10, answer_tokens=5, judgements=2, judge_tokens=100)
    costs = cost_plan(shape("tiny"), work, gpus=2, tokens_a_second=64, judge_price=5)
    assert costs["optimiser steps"] == 2  # 32 rows in steps of 2 x 8
    assert costs["tokens"]["training, one run"] == 2048 and costs["tokens"]["generated answers"] == 150
    assert costs["judge calls"] == 60 and costs["judge dollars"] == pytest.approx(60 * 100 * 5 / 1e6)
    assert list(costs["seconds"].values()) == [32, 48]
    memory = costs["memory"]
    assert memory["peak, checkpointing"] == 100 + 10 + 40 + 70
    assert (memory["activations, checkpointing"], memory["activations, no checkpointing"]) == (20, 60)
    assert memory["peak on each of 2 GPUs, weights shared"] == 220 - 80 + 80 / 2 + 2 * 5
    assert costs["disk"]["trained weights of all runs"] == 3 * 10


def test_the_command_prints_the_plan(tmp_path, capsys):
    row = {"model": "tiny", "condition": "training", "plain_step": 1, "tokens_a_second": 100.0}
    row |= {"batch_size": 2, "length": 32, "dtype": "bfloat16", "peak_bytes": None}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    arguments = ["plan", "tiny", "--measured", str(tmp_path / "rows.json"), "--rows", "100", "--length", "32"]
    assert main([*arguments, "--json"]) == 0
    costs = json.loads(capsys.readouterr().out)
    assert costs["memory"]["peak, no checkpointing"] > costs["memory"]["peak, checkpointing"]
    assert costs["seconds"]["training, one run, one GPU"] == 32
    assert peak_over_estimate({**row, "peak_bytes": costs["memory"]["peak, checkpointing"]}) == 1
    assert "judge calls: 48,000" in lines(costs) and "  training, one run, one GPU: 0.01 hours" in lines(
        costs
    )


def test_the_record_of_the_course_gives_a_speed():
    first, *_ = measured_training(data_path("results", "scale.json"), shape("7B"))
    assert first["condition"] == "training" and first["tokens_a_second"] > 0


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["plan", "70B"], "32B"),
        (["plan", "tiny", "--rows", "-1"], "rows"),
        (["plan", "tiny", "--measured", "missing.json"], "missing.json"),
        (["plam"], "plan MODEL"),
    ],
)
def test_the_command_names_what_is_wrong(arguments, told, capsys):
    assert main(arguments) != 0
    assert told in capsys.readouterr().err
