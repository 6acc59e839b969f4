"""Untrained SAEs with given or random weights."""

from __future__ import annotations

import torch


def jumprelu_sae(w_enc, w_dec, *, b_enc=None, b_dec=None, threshold=None):
    """Return a JumpReLU SAE with given weights, [d, F] and [F, d]."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

    d, latents = w_enc.shape
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d, d_sae=latents))
    weights = {"b_enc": b_enc, "threshold": threshold, "b_dec": b_dec}
    sizes = {"b_enc": latents, "threshold": latents, "b_dec": d}
    state = {name: torch.zeros(sizes[name]) if w is None else w for name, w in weights.items()}
    sae.load_state_dict({"W_enc": w_enc.clone(), "W_dec": w_dec.clone(), **state})
    return sae


def random_sae(latents=32, d=64, seed=0):
    """Return a JumpReLU SAE with random weights and decoder rows of different lengths."""
    torch.manual_seed(seed)
    return jumprelu_sae(
        torch.randn(d, latents) * 0.3,
        torch.randn(latents, d) * torch.rand(latents, 1),
        b_enc=torch.randn(latents),
        b_dec=torch.randn(d),
        threshold=torch.rand(latents),
    )


def relu_sae(w_enc, w_dec, *, b_enc=None, b_dec=None):
    """Return a ReLU SAE with given weights, [d, F] and [F, d]."""
    from sae_lens import StandardSAE, StandardSAEConfig

    d, latents = w_enc.shape
    sae = StandardSAE(StandardSAEConfig(d_in=d, d_sae=latents))
    b_enc = torch.zeros(latents) if b_enc is None else b_enc
    b_dec = torch.zeros(d) if b_dec is None else b_dec
    sae.load_state_dict({"W_enc": w_enc, "W_dec": w_dec, "b_enc": b_enc, "b_dec": b_dec})
    return sae


def random_relu_sae(d=64, seed=0):
    """Return a ReLU SAE of 32 latents with random weights."""
    torch.manual_seed(seed)
    w_enc, w_dec = torch.randn(d, 32) * 0.3, torch.randn(32, d)
    return relu_sae(w_enc, w_dec, b_enc=torch.randn(32), b_dec=torch.randn(d))
