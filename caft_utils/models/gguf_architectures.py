"""Architectures of GGUF files: the config of transformers, and the name and layout of each weight.

llama.cpp stores three things otherwise than transformers, and each is undone here:

- Llama's query and key rows: both rotate pairs of coordinates of a head, transformers (i, i + d/2), llama.cpp
  (2i, 2i + 1), so the rows of each head are interleaved.
- Gemma's norms multiply by 1 + w. llama.cpp stores 1 + w.
- Some settings of Gemma are constants in llama.cpp's code, not fields of the file.

The names are those of the `gguf` package (constants.py, tensor_mapping.py), the constants those of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from caft_utils.models.gguf_files import GGUFFile

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

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
GEMMA3_PERIOD = 6  # every sixth block sees the whole row
GEMMA3_LOCAL_THETA = 10_000.0
# Blocks of the 27B models, whose queries are scaled by another rule.
GEMMA_27B = {"gemma2": 46, "gemma3": 62}


def config_of(file: GGUFFile) -> PreTrainedConfig:
    """Return the config of the model in a GGUF file.

    Raises:
        ValueError: the architecture, or a setting of it, is one that is not read here; a field is missing or
            has a value that no model has. The message names it.
    """
    import transformers

    name = file.metadata.get("general.architecture")
    if name not in ARCHITECTURES:
        raise ValueError(
            f"{file.path} holds a model of the architecture {name!r}, which is not read from GGUF; expected "
            f"one of {', '.join(ARCHITECTURES)}. Load the model's folder or hub id instead"
        )
    class_name, settings = ARCHITECTURES[name]
    fields = _Fields(file, name)
    if fields.get("expert_count", 0):
        raise ValueError(f"{file.path} holds a mixture of experts, which is not read from GGUF")
    values = _common(file, fields) | settings(fields)
    try:
        return getattr(transformers, class_name)(**values, **_special_tokens(file), dtype="float32")
    except Exception as error:  # transformers checks that values fit together
        raise ValueError(f"{file.path} has settings that fit no model: {error}") from error


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
    fields = _Fields(file, architecture)
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


class _Fields:
    """The metadata of one architecture, with errors that name the file and the field."""

    def __init__(self, file: GGUFFile, architecture: str):
        self.file, self.architecture = file, architecture

    def get(self, name: str, default: Any = None) -> Any:
        value = self.file.metadata.get(f"{self.architecture}.{name}", default)
        if isinstance(value, np.ndarray):
            if len(set(value.tolist())) != 1:
                raise self._wrong(name, "differs between blocks, which is not read from GGUF")
            value = value[0].item()
        return value

    def number(self, name: str, kind: type = int, default: Any = None) -> Any:
        """Return a positive number."""
        value = self.get(name, default)
        if value is None:
            raise self._wrong(name, "is missing")
        if isinstance(value, bool) or not isinstance(value, (int, kind)) or not 0 < value < 2**31:
            raise self._wrong(name, f"is {value!r}, expected a positive number")
        return value

    def _wrong(self, name: str, problem: str) -> ValueError:
        return ValueError(f"{self.file.path}: the metadata field {self.architecture}.{name} {problem}")


def _common(file: GGUFFile, fields: _Fields) -> dict[str, Any]:
    """Return the settings that all architectures share."""
    blocks = fields.number("block_count")
    if blocks > len(file.tensors):
        raise ValueError(f"{file.path} announces {blocks} blocks but has {len(file.tensors)} tensors")
    if "token_embd.weight" not in file.tensors:
        raise ValueError(f"{file.path} lacks the tensor token_embd.weight; expected a whole language model")
    heads = fields.number("attention.head_count")
    width = fields.number("embedding_length")
    kv_heads = fields.number("attention.head_count_kv", default=heads)
    if width != file.tensors["token_embd.weight"].shape[-1] or heads % kv_heads:
        raise ValueError(f"{file.path}: its metadata and the shape of token_embd.weight do not fit together")
    return dict(
        vocab_size=file.tensors["token_embd.weight"].shape[0],
        hidden_size=width,
        intermediate_size=fields.number("feed_forward_length"),
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=fields.number("attention.key_length", default=width // heads),
        max_position_embeddings=fields.number("context_length"),
        rms_norm_eps=fields.number("attention.layer_norm_rms_epsilon", float),
        tie_word_embeddings="output.weight" not in file.tensors,
    )


def _special_tokens(file: GGUFFile) -> dict[str, int | None]:
    """Return the ids of the tokens that begin, end and pad a row; None where the file names none."""
    names = {"bos": "bos_token_id", "eos": "eos_token_id", "pad": "padding_token_id"}
    rows = file.tensors["token_embd.weight"].shape[0]
    found = {}
    for short, name in names.items():
        value = file.metadata.get(f"tokenizer.ggml.{name}")
        known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < rows
        found[f"{short}_token_id"] = value if known else None
    return found


def _rotary(fields: _Fields, *, factors: bool = False) -> dict[str, Any]:
    """Return the rotary settings; `factors` allows frequencies that are all divided by one factor."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": fields.number("rope.freq_base", float, 1e4)}
    scaling = fields.get("rope.scaling.type", "none")
    if scaling == "linear" and factors:
        rope |= {"rope_type": "linear", "factor": fields.number("rope.scaling.factor", float)}
    elif scaling != "none":
        raise fields._wrong("rope.scaling.type", f"is {scaling!r}, which is not read from GGUF")
    if "rope_freqs.weight" in fields.file.tensors:
        raise ValueError(
            f"{fields.file.path} scales its rotary frequencies (rope_freqs.weight, as Llama 3.1 and later), "
            "which is not read from GGUF; load the model's folder or hub id instead"
        )
    return rope


def _llama(fields: _Fields) -> dict[str, Any]:
    biased = "blk.0.attn_q.bias" in fields.file.tensors
    values = dict(rope_parameters=_rotary(fields, factors=True), attention_bias=biased, mlp_bias=False)
    if rotated := fields.get("rope.dimension_count"):
        width = fields.number("embedding_length") // fields.number("attention.head_count")
        if rotated != fields.get("attention.key_length", width):
            raise fields._wrong("rope.dimension_count", "is not the width of a head, which is not read")
    return values


def _qwen(fields: _Fields) -> dict[str, Any]:
    return dict(rope_parameters=_rotary(fields))


def _gemma(fields: _Fields) -> dict[str, Any]:
    return dict(rope_parameters=_rotary(fields), hidden_activation="gelu_pytorch_tanh")


def _query_scale(fields: _Fields) -> float:
    """Return the number whose square root divides the scores of attention."""
    heads, width = fields.number("attention.head_count"), fields.number("embedding_length")
    if fields.number("block_count") == GEMMA_27B[fields.architecture]:
        return width / heads
    return fields.number("attention.key_length", default=width // heads)


def _gemma2(fields: _Fields) -> dict[str, Any]:
    return _gemma(fields) | dict(
        query_pre_attn_scalar=_query_scale(fields),
        attn_logit_softcapping=fields.number("attn_logit_softcapping", float),
        final_logit_softcapping=fields.number("final_logit_softcapping", float),
        sliding_window=fields.number("attention.sliding_window"),
    )


def _gemma3(fields: _Fields) -> dict[str, Any]:
    local = fields.number("rope.freq_base_swa", float, GEMMA3_LOCAL_THETA)
    kinds = ["sliding_attention", "full_attention"]
    return dict(
        hidden_activation="gelu_pytorch_tanh",
        query_pre_attn_scalar=_query_scale(fields),
        sliding_window=fields.number("attention.sliding_window"),
        layer_types=[kinds[(i + 1) % GEMMA3_PERIOD == 0] for i in range(fields.number("block_count"))],
        final_logit_softcapping=fields.get("final_logit_softcapping"),
        rope_parameters={
            "full_attention": _rotary(fields, factors=True),
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
    )


# The class of the config, and the settings beyond those that all share.
ARCHITECTURES: dict[str, tuple[str, Callable[[_Fields], dict[str, Any]]]] = {
    "llama": ("LlamaConfig", _llama),
    "qwen2": ("Qwen2Config", _qwen),
    "qwen3": ("Qwen3Config", _qwen),
    "gemma": ("GemmaConfig", _gemma),
    "gemma2": ("Gemma2Config", _gemma2),
    "gemma3": ("Gemma3TextConfig", _gemma3),
}
