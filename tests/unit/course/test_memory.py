"""The estimate of a step's memory, beside what the allocator of a real step reports."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.profiler import profile

from caft_utils.course.memory import step_memory
from caft_utils.course.shapes import random_chats, random_model, shape
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning.adapters import trainable_copy
from caft_utils.finetuning.batches import collate, loss_at_answers
from caft_utils.losses import logits_at

TINY = shape("tiny")
CONFIG = FinetuneConfig(r=4, batch_size=4)


def measured(one, config, length, path) -> int:
    """Return the most bytes that a real step on the CPU held beside weights and optimiser."""
    tuned = trainable_copy(random_model(one, dtype="float32"), config, 0).train()
    if config.gradient_checkpointing:
        tuned.gradient_checkpointing_enable({"use_reentrant": False})
    inputs = collate([0, 1, 2, 3], random_chats(4, length, 9000), None)
    with profile(profile_memory=True) as seen:
        with logits_at(tuned, inputs["places"], inputs["labels"].shape):
            outputs = tuned(input_ids=inputs["input_ids"], use_cache=False)
        loss = loss_at_answers(outputs, inputs["labels"], places=inputs["places"])
        del outputs
        loss.backward()
    seen.export_chrome_trace(str(path))
    events = [e["args"] for e in json.loads(path.read_text())["traceEvents"] if e.get("name") == "[memory]"]
    start = events[0]["Total Allocated"] - events[0]["Bytes"]
    return max(event["Total Allocated"] for event in events) - start


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("saving", [True, False])
def test_the_estimate_is_what_a_step_takes(tmp_path, saving):
    config = replace(CONFIG, gradient_checkpointing=saving)
    found = step_memory(TINY, config, 128, dtype="float32", rank=0)
    assert found.step == pytest.approx(measured(TINY, config, 128, tmp_path / "trace.json"), rel=0.1)


def test_the_parts_are_those_of_the_model_that_is_trained():
    found = step_memory(TINY, CONFIG, 32, dtype="float32")
    base = random_model(TINY, dtype="float32")
    tuned = trainable_copy(base, CONFIG, 0)
    trained = sum(value.numel() for value in tuned.parameters() if value.requires_grad)
    assert found.parameters == sum(value.numel() for value in base.parameters()) == found.weights / 4
    assert found.trained_parameters == trained == found.trained / 4 == found.gradients / 4
    assert found.optimizer == 8 * trained
    assert found.peak == found.weights + found.trained + found.optimizer + found.step
    heads = {base.get_input_embeddings().weight, base.get_output_embeddings().weight}
    assert found.shared == 4 * sum(v.numel() for v in base.parameters() if v not in heads)
    assert found.block == 4 * sum(value.numel() for value in base.model.layers[0].parameters())
    assert found.sharded(1) == found.peak
    assert found.sharded(6) == found.peak - found.shared + round(found.shared / 6) + 2 * found.block


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(ValueError, match="'sgd'.*adamw"):
        step_memory(TINY, replace(CONFIG, optimizer="sgd"), 32)
    with pytest.raises(ValueError, match="blocks"):
        step_memory(TINY, replace(CONFIG, blocks=(1,)), 32)


def test_an_ablation_adds_to_what_is_kept():
    plain, ablated = (step_memory(TINY, CONFIG, 64, dtype="float32", rank=rank) for rank in (0, 2))
    assert plain.activations < ablated.activations < 1.2 * plain.activations
    assert torch.is_grad_enabled()
