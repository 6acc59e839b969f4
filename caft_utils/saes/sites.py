"""Check that an SAE was trained on the residual stream, by the site name in its files.

SAEs of this package read the residual stream after block l. Published collections also hold SAEs of the
stream before a block, SAEs of MLP or attention outputs, and transcoders, all in the same file format. At the
wrong site such an SAE returns numbers without an error. Site names in use:

    blocks.12.hook_resid_post, blocks.12.hook_mlp_out, blocks.12.attn.hook_z     TransformerLens, sae-lens
    model.layers.12, model.layers.12.mlp                                         transformers
    resid_post_layer_12, mlp_out_layer_12                                        dictionary_learning
    gemma-scope-2b-pt-res, gemma-scope-2b-pt-mlp, layer_12/width_16k             Gemma Scope
"""

from __future__ import annotations

import re

NUMBER = re.compile(r"(?:^|[._/])(?:blocks|layers?|h)[._](-?\d+)(?=$|[._/])")
OTHER_SITE = re.compile(
    r"(?<![a-z])(mlp|attn?|attention|self_attn|resid_mid|transcoders?|ln\d?|hook_[zqkv]|input_layernorm|"
    r"post_attention_layernorm|feed_forward)(?![a-z])"
)


def check_site(name: object, layer: int, where: str) -> None:
    """Raise ValueError if the name of an SAE's site is not that of the residual stream after block `layer`.

    The stream before block l + 1 is the one after block l, so "blocks.13.hook_resid_pre" is layer 12.

    Args:
        name: the site as the SAE's files name it. A value that is not text is not checked.
        layer: the layer at which the SAE is to be used; -1 is the embedding.
        where: what the error calls the SAE.

    Raises:
        ValueError: the name belongs to another site or another layer.
    """
    if not isinstance(name, str):
        return
    wanted = f"expected one of the residual stream after block {layer} (resid_post)"
    if other := OTHER_SITE.search(name.lower()):
        raise ValueError(f"{where} reads {name!r}, the site {other[1]!r}; {wanted}")
    numbers = NUMBER.findall(name)
    read = int(numbers[-1]) - ("resid_pre" in name) if numbers else -1 if "embed" in name else layer
    if read != layer:
        raise ValueError(f"{where} reads {name!r}, which is layer {read}; {wanted}")
