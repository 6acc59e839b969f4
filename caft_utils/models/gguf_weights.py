"""Weights of GGUF files: the name and the layout of each tensor.

llama.cpp stores two things otherwise than transformers, and both are undone here:

- Query and key rows of Llama. Both programs rotate pairs of coordinates of a head: transformers the pairs
  (i, i + d/2), llama.cpp (2i, 2i + 1). So the rows of each head are interleaved in the file.
- Norms of Gemma, which multiply by 1 + w. The file holds 1 + w.

The names are those of the `gguf` package (constants.py, tensor_mapping.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from caft_utils.models.gguf_architectures import Fields
from caft_utils.models.gguf_files import GGUFFile

OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
INNER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
# Gemma 2 and 3 have a norm before and after each part of a block.
GEMMA_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def weights_of(file: GGUFFile, expected: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the weights by transformers' names, as float32.

    Args:
        expected: {name: shape} of the model's weights, without tied ones.

    Raises:
        ValueError: tensors are missing or left over, have another shape, or are not finite.
    """
    architecture = file.metadata["general.architecture"]
    names = {name: gguf_name(architecture, name) for name in expected}
    missing = sorted(set(names.values()) - set(file.tensors))
    extra = sorted(set(file.tensors) - set(names.values()))
    for problem, odd in (("lacks", missing), ("has, with no place in the model,", extra)):
        if odd:
            more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
            raise ValueError(
                f"{file.path} {problem} the tensor {odd[0]}{more}; expected a whole {architecture} model "
                "without parts of its own kind"
            )
    for name, shape in expected.items():
        if (found := file.tensors[names[name]].shape) != tuple(shape):
            raise ValueError(
                f"{file.path}: the tensor {names[name]} has the shape {list(found)}, but its metadata "
                f"describe {list(shape)}; download the file again"
            )
    heads = {"q_proj": "head_count", "k_proj": "head_count_kv"}
    fields = Fields(file, architecture)
    for name in expected:
        values = file.tensor(names[name])
        if architecture == "llama" and (kind := heads.get(name.split(".")[-2])):
            fallback = fields.get("attention.head_count")
            values = without_interleaving(values, fields.get(f"attention.{kind}", fallback))
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values - 1
        yield name, values


def gguf_name(architecture: str, name: str) -> str:
    """Return llama.cpp's name of a weight of transformers."""
    if name in OUTER:
        return OUTER[name]
    _, _, block, rest = name.split(".", 3)
    part, _, kind = rest.rpartition(".")
    inner = INNER | GEMMA_NORMS if architecture in ("gemma2", "gemma3") else INNER
    return f"blk.{block}.{inner[part]}.{kind}"


def without_interleaving(rows: np.ndarray, heads: int) -> np.ndarray:
    """Put the rows 0, 2, 4, ... of each head before the rows 1, 3, 5, ..."""
    split = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)
