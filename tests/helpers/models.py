"""What tests ask of models: their hooks, their hidden states, a LoRA wrapper, a perturbed copy."""

from __future__ import annotations

import copy

import torch

from caft_utils.residual import EMBEDDING, capture

ARCHITECTURES = ["qwen2", "mistral", "gemma2"]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])


def hooks(model) -> int:
    """Return the number of forward hooks on all modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def states(model, layers=(EMBEDDING, 0, 1, 2), ids=IDS):
    """Return {layer: hidden states} of one whole forward pass."""
    with capture(model, layers, stop_early=False) as hidden:
        model(ids)
    return hidden


def with_lora(model, seed: int = 0):
    """Return a PEFT model with untrained LoRA adapters on all projections."""
    from peft import LoraConfig, get_peft_model

    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(
            model, LoraConfig(r=4, lora_alpha=64, use_rslora=True, target_modules=projections)
        )


def perturbed(base, seed: int = 0, scale: float = 0.02):
    """Return a copy of a model with noise on the weights of its blocks, in place of a fine-tuned one."""
    model = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model


SINK_TOKEN = 5  # the first of IDS
SINK_ENTRY = 7


def with_sink(model, token: int = SINK_TOKEN, size: float = 300.0):
    """Give the embedding of `token` one huge entry, which makes it an attention sink at every layer."""
    with torch.no_grad():
        model.get_input_embeddings().weight[token, SINK_ENTRY] = size
    return model
