"""The study of architectures: its experiment runs from end to end, and its comparison can fail."""

from __future__ import annotations

import pytest

from caft_utils.course.studies import architectures
from caft_utils.course.studies.architectures import architecture_rows, chosen_architectures


def test_checkpointing_changes_nothing_in_a_model_of_text_and_images():
    (row,) = architecture_rows("Gemma3", (0,), ("gradient checkpointing, float32",))
    assert row["loss"] < 1e-5 and row["adapter"] < 1e-4
    assert row["same_answers"] == row["answers"] > 4 and list(row["by architecture"]) == ["Gemma3"]


def test_another_result_shows(monkeypatch):
    experiment = architectures.experiment

    def other_seed_with_checkpointing(name, dtype, seed, store, *, checkpointing=False):
        return experiment(name, dtype, seed + checkpointing, store)

    monkeypatch.setattr(architectures, "experiment", other_seed_with_checkpointing)
    (row,) = architecture_rows("Qwen2", (0,), ("gradient checkpointing, float32",))
    assert row["adapter"] > 0.1 and row["loss"] > 1e-4


def test_unknown_architectures_are_refused():
    assert len(chosen_architectures("all")) == 6
    with pytest.raises(ValueError, match="'Llama'.*Gemma3"):
        chosen_architectures("Llama")
