"""The logit lens reads the model's own norm and head."""

from __future__ import annotations

import pytest
import torch

from caft_utils.interpret import logit_lens


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2"])
def test_logit_lens_reads_norm_and_head(tiny, tokenizer, architecture):
    model = tiny(architecture)
    v = torch.randn(64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        order = model.lm_head(model.model.norm(v[None]))[0].argsort(descending=True)
    words = [tokenizer.decode([t]).strip() for t in order.tolist()]
    words = [word for word in words if word.isprintable() and word and "\ufffd" not in word]
    raised, lowered = logit_lens(model, tokenizer, v, k=3)
    assert raised == list(dict.fromkeys(words))[:3] and lowered == list(dict.fromkeys(words[::-1]))[:3]


def test_a_direction_of_another_width_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="found in another model"):
        logit_lens(model, tokenizer, torch.ones(3))


def test_a_head_with_nan_promotes_no_word(model, tokenizer):
    with torch.no_grad():
        model.lm_head.weight[7, 3] = float("nan")
    with pytest.raises(ValueError, match="Qwen2ForCausalLM.*not finite"):
        logit_lens(model, tokenizer, torch.ones(64))
