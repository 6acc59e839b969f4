"""Targets of an adapter: the matrices that they name, in decoder blocks only, or an error with the cure."""

from __future__ import annotations

import re

import pytest
import torch
import transformers

from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning.adapters import trainable_copy

SHAPE = dict(
    vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=32
)
WIDE = SHAPE | dict(intermediate_size=32, num_key_value_heads=1)
EXPERTS = WIDE | dict(num_experts_per_tok=1)
CONFIGS = {
    "phi3": lambda: transformers.Phi3Config(**WIDE, pad_token_id=0),
    "opt": lambda: transformers.OPTConfig(**SHAPE, ffn_dim=32, word_embed_proj_dim=16),
    "neox": lambda: transformers.GPTNeoXConfig(**SHAPE, intermediate_size=32),
    "starcoder2": lambda: transformers.Starcoder2Config(**WIDE),
    "glm4": lambda: transformers.Glm4Config(**WIDE, head_dim=8, pad_token_id=0),
    "mixtral": lambda: transformers.MixtralConfig(**EXPERTS, num_local_experts=2),
    "qwen2_moe": lambda: transformers.Qwen2MoeConfig(
        **EXPERTS, num_experts=2, moe_intermediate_size=8, shared_expert_intermediate_size=8
    ),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **EXPERTS, num_experts=2, moe_intermediate_size=8, head_dim=8
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(**WIDE, head_dim=8),
    "granite": lambda: transformers.GraniteConfig(**WIDE),
}


def make(name):
    with torch.random.fork_rng():
        return transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()


def adapted(model, **settings):
    """Return the names of the matrices that get an adapter."""
    tuner = trainable_copy(model, FinetuneConfig(r=2, **settings), 0).base_model
    return {*tuner.targeted_module_names, *tuner.targeted_parameter_names}


def matrices(model):
    """Return all weight matrices of the decoder blocks, except routers."""
    names = {name for name, value in model.get_decoder().layers.named_parameters() if value.ndim >= 2}
    path = next(name for name, module in model.named_modules() if module is model.get_decoder().layers)
    names = {name for name in names if not re.search(r"gate\.weight|shared_expert_gate", name)}
    return {f"{path}.{name.removesuffix('.weight')}" for name in names}


@pytest.mark.parametrize("name", CONFIGS)
def test_all_linear_reaches_all_matrices_and_nothing_else(name):
    model = make(name)
    assert adapted(model, targets="all-linear") == matrices(model)


@pytest.mark.parametrize("name", CONFIGS)
def test_default_targets_reach_all_matrices_or_name_the_cure(name):
    model = make(name)
    try:
        reached = adapted(model)
    except ValueError as error:
        assert "all-linear" in str(error) and name not in ("gemma3", "granite", "qwen3_moe")
    else:
        assert reached == matrices(model)


@pytest.mark.parametrize("targets", ["q_proj", ["q_proj"], ("q_proj",)])
def test_one_name_in_any_form(model, targets):
    assert adapted(model, targets=targets) == {f"model.layers.{i}.self_attn.q_proj" for i in range(3)}
    assert FinetuneConfig(targets=targets) == FinetuneConfig(targets=("q_proj",))


@pytest.mark.parametrize("unknown", ["nope", "lm_head", "embed_tokens", "mlp", "input_layernorm", ".*q_proj"])
@pytest.mark.parametrize("architecture", ["qwen2", "mixtral"])
def test_names_that_match_no_matrix_of_a_block(tiny, architecture, unknown):
    model = make("mixtral") if architecture == "mixtral" else tiny(architecture)
    with pytest.raises(ValueError, match=f"named '{re.escape(unknown)}'.*'q_proj'"):
        adapted(model, targets=("q_proj", unknown))


def test_names_of_experts_that_are_not_adapted():
    with pytest.raises(ValueError, match="gate_proj"):
        adapted(make("mixtral"), targets=("q_proj", "gate_proj"))


def test_blocks_limit_the_targets(model):
    for targets in ("all-linear", "q_proj"):
        assert {name.split(".")[2] for name in adapted(model, targets=targets, blocks=[1])} == {"1"}
    experts = adapted(make("mixtral"), targets="all-linear", blocks=[1])
    assert {name.split(".")[2] for name in experts} == {"1"} and any("experts" in name for name in experts)


@pytest.mark.parametrize("kind", ["mistral3", "gemma3"])
def test_image_encoders_get_no_adapter(multimodal, kind):
    model = multimodal(kind)
    for settings in ({}, {"targets": "all-linear"}, {"targets": "q_proj", "blocks": [1]}):
        reached = adapted(model, **settings)
        assert reached and reached <= matrices(model)
