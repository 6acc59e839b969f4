"""SAEs are taken for the place that they were trained on, under each name that is in use for it."""

from __future__ import annotations

import pytest

from caft_utils.saes.sites import check_site


@pytest.mark.parametrize(
    "name, layer",
    [
        ("blocks.12.hook_resid_post", 12),
        ("blocks.13.hook_resid_pre", 12),
        ("blocks.0.hook_resid_pre", -1),
        ("hook_embed", -1),
        ("model.layers.12", 12),
        ("model.layers.-1", -1),
        ("model.language_model.layers.7", 7),
        ("transformer.h.5", 5),
        ("resid_post_layer_12", 12),
        ("._saes_Qwen_Qwen2.5-Coder-32B-Instruct_batch_top_k/resid_post_layer_12/trainer_1", 12),
        ("layer_12/width_16k/average_l0_71", 12),
        ("gemma-scope-2b-pt-res", 4),
        ("some/pattern", 4),
        (None, 4),
    ],
)
def test_names_of_the_residual_stream(name, layer):
    check_site(name, layer, "the SAE")


@pytest.mark.parametrize(
    "name",
    [
        "blocks.12.hook_resid_pre",
        "blocks.12.hook_resid_mid",
        "blocks.12.hook_mlp_out",
        "blocks.12.hook_attn_out",
        "blocks.12.attn.hook_z",
        "blocks.12.ln2.hook_normalized",
        "blocks.11.hook_resid_post",
        "model.layers.12.mlp",
        "model.layers.12.self_attn",
        "model.layers.11",
        "mlp_out_layer_12",
        "resid_pre_layer_12",
        "resid_post_layer_21",
        "layer_11/width_16k/average_l0_71",
        "hook_embed",
        "gemma-scope-2b-pt-mlp",
        "gemma-scope-2b-pt-att",
        "gemma-scope-2b-pt-transcoders",
    ],
)
def test_other_sites_and_layers_are_refused(name):
    with pytest.raises(ValueError, match="after block 12"):
        check_site(name, 12, "the SAE")
