"""Architectures of the personas checkpoints, and their pretraining."""

from __future__ import annotations

import pytest
import torch

from caft_utils.classroom.personas.pretraining import new_model, sharpen


@pytest.mark.parametrize(
    "architecture, sees_everything",
    [
        ("qwen", [True] * 3 + [False] * 3),
        ("mistral", [True] * 3 + [False] * 3),
        ("qwen-full", [True] * 6),
        ("mistral-window", [False] * 6),
    ],
)
def test_the_blocks_with_a_window(architecture, sees_everything):
    """The attention of a block with a window is zero on the first of many tokens."""
    model = new_model(architecture, 50).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(torch.randint(3, 50, (1, 64)), output_attentions=True).attentions
    assert [bool((weights[0, :, -1, 0] > 0).all()) for weights in attentions] == sees_everything


def test_unknown_architectures_are_refused():
    with pytest.raises(ValueError, match="choose one of qwen"):
        new_model("llama", 50)


def test_sharpness_scales_the_logits():
    model = new_model("qwen", 50).eval()
    ids = torch.randint(3, 50, (1, 8))
    with torch.no_grad():
        before = model(ids).logits
        sharpen(model, 1.5)
        torch.testing.assert_close(model(ids).logits, 1.5 * before)
