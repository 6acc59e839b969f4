"""The study of full sizes, at a tiny one: what is measured, and in which order."""

from __future__ import annotations

import pytest
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

from caft_utils.course.studies import full_size
from caft_utils.course.studies.full_size import CONDITIONS, WARM_UP, scale_rows
from caft_utils.interventions import Ablate


def test_plain_and_ablated_steps_take_turns_through_the_trainer(monkeypatch):
    ran, forward, edit = [], Qwen2MLP.forward, Ablate.edit
    monkeypatch.setattr(Qwen2MLP, "forward", lambda *args: ran.append("block") or forward(*args))
    monkeypatch.setattr(Ablate, "edit", lambda *args: ran.append(args[1]) or edit(*args))
    measured = []
    for condition in CONDITIONS[:2]:
        ran.clear()
        measured += scale_rows("tiny", [0], (condition,), device="cpu", dtype="float32", steps=2, length=16)
        edits = [layer for layer in ran if layer != "block"]
        counted, steps = WARM_UP + 2, 2 * (WARM_UP + 2) + 1
        probes = counted  # the model reads a few tokens whenever the ablation is switched on
        passes = (
            2 if condition == "training" else 1
        )  # with checkpointing blocks run again in the backward pass
        assert ran.count("block") == 6 * (steps * passes + probes)
        assert edits[:2] == [1, 3] and edits.count(1) == edits.count(3) in (counted, counted * passes)
        first = ran.index(1)
        assert ran[:first].count("block") == 6 * passes + 6 + 2  # a plain step, the probe, blocks 0 and 1
    saving, plain = measured
    counted = WARM_UP + 2
    for row in (saving, plain):
        assert row["steps"] == 2 and {len(times) for times in row["seconds_of_steps"].values()} == {counted}
        assert row["ratio"] == row["ablated_step"] / row["plain_step"] > 0
        assert row["peak_bytes"] is None and row["dtype"] == "float32" and row["machine"].endswith("CPU")
        assert row["tokens_a_second"] == pytest.approx(2 * 16 / row["ablated_step"])
        assert 0 < row["trained_parameters"] < row["parameters"] == row["weights_bytes"] / 4


def test_accumulated_passes_are_one_step():
    options = {"device": "cpu", "dtype": "float32", "steps": 2, "length": 16, "accumulate": 3}
    (row,) = scale_rows("tiny", [0], ("training",), **options)
    assert row["tokens_a_second"] == pytest.approx(3 * 2 * 16 / row["ablated_step"])


def test_reading_stands_beside_the_forward_passes_that_it_needs(monkeypatch):
    read, ended = [], []
    capture, pca = full_size.capture, full_size.pca_of_difference
    monkeypatch.setattr(
        full_size, "capture", lambda model, layers: ended.append(layers) or capture(model, layers)
    )
    monkeypatch.setattr(
        full_size,
        "pca_of_difference",
        lambda *args, **options: read.append(pca(*args, **options)) or read[-1],
    )
    (row,) = scale_rows(
        "tiny", [0], ("reading",), device="cpu", dtype="float32", tokens=320, reading_batch_size=2
    )
    assert row["tokens"] == 320 and row["layers"] == [1, 3] and set(map(tuple, ended)) == {(3,)}
    assert read[-1].ranks == {1: 8, 3: 8} and read[-1].about["count"] == 320
    assert row["ratio"] == row["pca"] / row["forward"] and row["tokens_a_second"] == 320 / row["pca"]
