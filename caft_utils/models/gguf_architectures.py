"""Settings of the models in GGUF files: the metadata of an architecture -> a config of transformers.

Some settings of Gemma are constants in llama.cpp's code and not fields of a file. They are constants here
too. A field that is not known here could change what the model computes, so it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from caft_utils.models.gguf_files import GGUFFile

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

GEMMA3_PERIOD = 6  # every sixth block sees the whole row
GEMMA3_LOCAL_THETA = 10_000.0
# Blocks of the 27B models, whose queries are scaled by another rule.
GEMMA_27B = {"gemma2": 46, "gemma3": 62}
# Fields that are not read because they change nothing.
WITHOUT_EFFECT = {
    "vocab_size",
    "expert_used_count",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
}


def config_of(file: GGUFFile) -> PreTrainedConfig:
    """Return the config of the model in a GGUF file.

    Raises:
        ValueError: the architecture, or a setting of it, is one that is not read here; a field is missing or
            has a value that no model has. The message names it.
    """
    import transformers

    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ValueError(
            f"{file.path} holds a model of the architecture {name!r}, which is not read from GGUF; expected "
            f"one of {', '.join(ARCHITECTURES)}. Load the model's folder or hub id instead"
        )
    parts = file.metadata.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise ValueError(
            f"{file.path} is one of {parts} parts of a model; join them with `llama-gguf-split --merge`"
        )
    class_name, settings = ARCHITECTURES[name]
    fields = Fields(file, name)
    if fields.get("expert_count", 0):
        raise ValueError(f"{file.path} holds a mixture of experts, which is not read from GGUF")
    values = _common(file, fields) | settings(fields)
    fields.refuse_unread()
    try:
        return getattr(transformers, class_name)(**values, **_special_tokens(file), dtype="float32")
    except Exception as error:  # transformers checks that values fit together
        raise ValueError(f"{file.path} has settings that fit no model: {error}") from error


class Fields:
    """The metadata of one architecture, with errors that name the file and the field."""

    def __init__(self, file: GGUFFile, architecture: str):
        self.file, self.architecture = file, architecture
        self._read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a field; of one value for each block, the value that all have."""
        self._read.add(name)
        value = self.file.metadata.get(f"{self.architecture}.{name}", default)
        if isinstance(value, np.ndarray):
            if len(set(value.tolist())) != 1:
                raise self.wrong(name, "differs between blocks, which is not read from GGUF")
            value = value[0].item()
        return value

    def number(self, name: str, kind: type = int, default: Any = None) -> Any:
        """Return a positive number."""
        value = self.get(name, default)
        if value is None:
            raise self.wrong(name, "is missing")
        if isinstance(value, bool) or not isinstance(value, (int, kind)) or not 0 < value < 2**31:
            raise self.wrong(name, f"is {value!r}, expected a positive number")
        return value

    def refuse_unread(self) -> None:
        """Refuse a field of the architecture that nothing has asked for."""
        start = f"{self.architecture}."
        own = {name.removeprefix(start) for name in self.file.metadata if name.startswith(start)}
        if unread := sorted(own - self._read - WITHOUT_EFFECT):
            raise self.wrong(unread[0], "is not known here and may change what the model computes")

    def wrong(self, name: str, problem: str) -> ValueError:
        return ValueError(f"{self.file.path}: the metadata field {self.architecture}.{name} {problem}")


def _common(file: GGUFFile, fields: Fields) -> dict[str, Any]:
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
    head = fields.number("attention.key_length", default=width // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if fields.number(name, default=head) != head:
            raise fields.wrong(name, f"is not the width of a head ({head}), which is not read from GGUF")
    return dict(
        vocab_size=file.tensors["token_embd.weight"].shape[0],
        hidden_size=width,
        intermediate_size=fields.number("feed_forward_length"),
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head,
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


def _rotary(fields: Fields, *, factors: bool = False) -> dict[str, Any]:
    """Return the rotary settings; `factors` allows frequencies that are all divided by one factor."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": fields.number("rope.freq_base", float, 1e4)}
    scaling = fields.get("rope.scaling.type", "none")
    if scaling == "linear" and factors:
        rope |= {"rope_type": "linear", "factor": fields.number("rope.scaling.factor", float)}
    elif scaling != "none":
        raise fields.wrong("rope.scaling.type", f"is {scaling!r}, which is not read from GGUF")
    if "rope_freqs.weight" in fields.file.tensors:
        raise ValueError(
            f"{fields.file.path} scales its rotary frequencies (rope_freqs.weight, as Llama 3.1 and later), "
            "which is not read from GGUF; load the model's folder or hub id instead"
        )
    return rope


def _llama(fields: Fields) -> dict[str, Any]:
    biased = "blk.0.attn_q.bias" in fields.file.tensors
    return dict(rope_parameters=_rotary(fields, factors=True), attention_bias=biased, mlp_bias=False)


def _qwen(fields: Fields) -> dict[str, Any]:
    return dict(rope_parameters=_rotary(fields))


def _gemma(fields: Fields) -> dict[str, Any]:
    return dict(rope_parameters=_rotary(fields), hidden_activation="gelu_pytorch_tanh")


def _query_scale(fields: Fields) -> float:
    """Return the number whose square root divides the scores of attention."""
    heads, width = fields.number("attention.head_count"), fields.number("embedding_length")
    if fields.number("block_count") == GEMMA_27B[fields.architecture]:
        return width / heads
    return fields.number("attention.key_length", default=width // heads)


def _gemma2(fields: Fields) -> dict[str, Any]:
    return _gemma(fields) | dict(
        query_pre_attn_scalar=_query_scale(fields),
        attn_logit_softcapping=fields.number("attn_logit_softcapping", float),
        final_logit_softcapping=fields.number("final_logit_softcapping", float),
        sliding_window=fields.number("attention.sliding_window"),
    )


def _gemma3(fields: Fields) -> dict[str, Any]:
    local = fields.number("rope.freq_base_swa", float, GEMMA3_LOCAL_THETA)
    kinds = ["sliding_attention", "full_attention"]
    capped = fields.get("final_logit_softcapping")
    return dict(
        hidden_activation="gelu_pytorch_tanh",
        query_pre_attn_scalar=_query_scale(fields),
        sliding_window=fields.number("attention.sliding_window"),
        layer_types=[kinds[(i + 1) % GEMMA3_PERIOD == 0] for i in range(fields.number("block_count"))],
        final_logit_softcapping=capped and fields.number("final_logit_softcapping", float),
        rope_parameters={
            "full_attention": _rotary(fields, factors=True),
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
    )


# The class of the config, and the settings beyond those that all share.
ARCHITECTURES: dict[str, tuple[str, Callable[[Fields], dict[str, Any]]]] = {
    "llama": ("LlamaConfig", _llama),
    "qwen2": ("Qwen2Config", _qwen),
    "qwen3": ("Qwen3Config", _qwen),
    "gemma": ("GemmaConfig", _gemma),
    "gemma2": ("Gemma2Config", _gemma2),
    "gemma3": ("Gemma3TextConfig", _gemma3),
}
