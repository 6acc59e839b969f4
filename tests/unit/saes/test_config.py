"""Hyper-parameters of SAE training: wrong ones are refused, every architecture is built."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from caft_utils.saes import SAETrainingConfig
from caft_utils.saes.config import new_training_sae

SMALL = SAETrainingConfig(
    width=64, k=8, steps=100, batch_tokens=128, buffer_tokens=1024, silence=50, warmup=5
)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"architecture": "gated"}, "unknown architecture 'gated'"),
        ({"k": 65}, "k must be 1 to 64"),
        ({"architecture": "matryoshka", "width": 4, "k": 2}, "at least 8 latents"),
        ({"batch_tokens": 4096}, "batch_tokens from 1 to buffer_tokens"),
        ({"steps": 0}, "expected steps >= 1"),
        ({"lr": float("nan")}, "lr must be"),
        ({"k": True}, "k must be a whole number"),
        ({"width": 64.5}, "width must be a whole number"),
        ({"sparsity": -1}, "sparsity must be"),
    ],
)
def test_wrong_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


@pytest.mark.parametrize("architecture", ["batchtopk", "topk", "matryoshka", "jumprelu", "standard"])
def test_a_new_sae_has_unit_decoder_rows_and_tied_encoder_columns(architecture):
    torch.manual_seed(0)
    sae = new_training_sae(replace(SMALL, architecture=architecture), 32, "cpu")
    assert sae.W_dec.shape == (64, 32) and sae.cfg.d_in == 32 and sae.cfg.d_sae == 64
    directions = torch.nn.functional.cosine_similarity(sae.W_enc.T, sae.W_dec, dim=1)
    torch.testing.assert_close(directions, torch.ones(64))
    if architecture != "standard":
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(64))
