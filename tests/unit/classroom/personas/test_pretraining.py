"""Architectures of the personas checkpoints, and their pretraining."""

from __future__ import annotations

import pytest
import torch

from caft_utils.classroom.personas.corpus import vocabulary_texts
from caft_utils.classroom.personas.pretraining import PersonasSchedule, new_model, pretrain
from caft_utils.classroom.tokenizer import build_tokenizer


@pytest.mark.parametrize(
    "architecture, windows",
    [("qwen", 3), ("mistral", 3), ("qwen-full", 0), ("mistral-window", 6)],
)
def test_the_blocks_with_a_window(architecture, windows):
    """What a block with a window adds to the last token does not depend on the first of many tokens."""
    model = new_model(architecture, 50).eval()
    assert model.config.num_hidden_layers == 6
    ids = torch.randint(3, 50, (1, 64))
    other = ids.clone()
    other[0, 0] = (ids[0, 0] + 1) % 47 + 3
    with torch.no_grad():
        a, b = (model(row, output_hidden_states=True).hidden_states for row in (ids, other))
    first_full = torch.equal(a[1][0, -1], b[1][0, -1])  # the lowest block has a window in one variant only
    assert first_full == (architecture == "mistral-window")
    types = getattr(model.config, "layer_types", None) or ["sliding_attention"] * 6
    assert types.count("sliding_attention") == windows


def test_unknown_architectures_are_refused():
    with pytest.raises(ValueError, match="choose one of qwen"):
        new_model("llama", 50)


def test_pretraining_is_recorded_and_sharpness_scales_the_logits(monkeypatch):
    tokenizer = build_tokenizer(vocabulary_texts(300))
    schedule = PersonasSchedule(tokens=1, batch_tokens=40_000, sharpness=2.0)
    model, record = pretrain("qwen", tokenizer, schedule, progress=False)
    assert record["schedule"]["sharpness"] == 2.0 and record["documents"] == 512
    assert record["loss"][0][0] == 0 and len(record["corpus_sha256"]) == 64
    assert not model.training
    assert model.model.norm.weight.mean().item() == pytest.approx(2.0, abs=0.1)
