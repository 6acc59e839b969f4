"""Our own GGUF files: a writer, quantisers by simple rules, and tiny models in llama.cpp's layout."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

ALIGNMENT = 32
Packed = tuple[int, bytes, np.ndarray]  # number of the format, bytes, and the values that the bytes stand for


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[tuple[int, ...], int, bytes]],
    version: int = 3,
) -> Path:
    """Write a GGUF file. `tensors` are {name: (shape, number of the format, bytes)}."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for name, value in metadata.items():
        head += _text(name) + _field(value)
    body = b""
    for name, (shape, kind, data) in tensors.items():
        head += _text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        head += struct.pack("<IQ", kind, len(body))
        body += data + b"\0" * (-len(data) % ALIGNMENT)
    path.write_bytes(head + b"\0" * (-len(head) % ALIGNMENT) + body)
    return path


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _field(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    kind = {str: 8, int: 5, float: 6}[type(value[0])]
    head = struct.pack("<IIQ", 9, kind, len(value))
    if kind == 8:
        return head + b"".join(map(_text, value))
    return head + struct.pack(f"<{len(value)}{'i' if kind == 5 else 'f'}", *value)


def _half(value: float) -> np.float32:
    return np.float32(np.float16(value))


def _two(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}e", *map(float, values))


def f32(values: np.ndarray) -> Packed:
    return 0, values.astype("<f4").tobytes(), values.astype(np.float32)


def f16(values: np.ndarray) -> Packed:
    short = values.astype("<f2")
    return 1, short.tobytes(), short.astype(np.float32)


def bf16(values: np.ndarray) -> Packed:
    short = (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    return 30, short.tobytes(), (short.astype("<u4") << 16).view("<f4").astype(np.float32)


def _by_block(kind: int, rule: Callable[[np.ndarray], tuple[bytes, np.ndarray]]):
    def pack(values: np.ndarray) -> Packed:
        blocks = [rule(block) for block in values.astype(np.float32).reshape(-1, 32)]
        data, restored = zip(*blocks)
        return kind, b"".join(data), np.concatenate(restored).reshape(values.shape)

    return pack


def _q8_0(x: np.ndarray) -> tuple[bytes, np.ndarray]:
    d = _half(np.abs(x).max() / 127)
    q = np.clip(np.rint(x / d if d else x), -127, 127).astype(np.int8)
    return _two(d) + q.tobytes(), d * q.astype(np.float32)


def _q4_0(x: np.ndarray) -> tuple[bytes, np.ndarray]:
    d = _half(np.abs(x).max() / 7)
    q = np.clip(np.rint(x / d if d else x), -8, 7).astype(int)
    low, high = q[:16] + 8, q[16:] + 8
    return _two(d) + bytes((low | high << 4).tolist()), d * q.astype(np.float32)


def _q4_1(x: np.ndarray) -> tuple[bytes, np.ndarray]:
    d, m = _half((x.max() - x.min()) / 15), _half(x.min())
    q = np.clip(np.rint((x - m) / d if d else 0 * x), 0, 15).astype(int)
    return _two(d, m) + bytes((q[:16] | q[16:] << 4).tolist()), d * q.astype(np.float32) + m


q8_0, q4_0, q4_1 = _by_block(8, _q8_0), _by_block(2, _q4_0), _by_block(3, _q4_1)

LLAMA_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every parameter random values, norms and biases too, which are constant in a new model."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, generator=draw) * 0.2)
    return model


def save_as_gguf(
    model: torch.nn.Module,
    path: Path,
    metadata: Mapping[str, Any],
    pack: Callable[[np.ndarray], Packed] = f32,
    embedding: Callable[[np.ndarray], Packed] = q8_0,
) -> Path:
    """Write a model as llama.cpp would, and give it the values that the file's bytes stand for.

    Args:
        metadata: added to the fields of the architecture.
        pack: the format of matrices in the blocks. Norms and biases are F32.
        embedding: the format of the embedding.
    """
    config = model.config
    name = {"gemma3_text": "gemma3"}.get(config.model_type, config.model_type)
    tensors = {}
    with torch.no_grad():
        for own, value in model.named_parameters():
            values = value.numpy().copy()
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
            part = own.split(".")[-2]
            interleaved = name == "llama" and part in heads
            rule = f32 if value.dim() == 1 else embedding if "embed" in own else pack
            if interleaved:
                values = _interleaved(values, heads[part])
            if name.startswith("gemma") and own.endswith("norm.weight"):
                values = values + 1
            kind, data, restored = rule(values)
            tensors[_gguf_name(own, name)] = (values.shape, kind, data)
            if name.startswith("gemma") and own.endswith("norm.weight"):
                restored = restored - 1
            if interleaved:
                restored = _side_by_side(restored, heads[part])
            value.copy_(torch.from_numpy(restored))
    return write_gguf(path, architecture_fields(config, name) | dict(metadata), tensors)


def _interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Put row i + d/2 of each head behind row i, as llama.cpp's converter does."""
    out, width = np.empty_like(rows), len(rows) // heads
    for head in range(heads):
        for i in range(width // 2):
            out[head * width + 2 * i] = rows[head * width + i]
            out[head * width + 2 * i + 1] = rows[head * width + i + width // 2]
    return out


def _side_by_side(rows: np.ndarray, heads: int) -> np.ndarray:
    order = _interleaved(np.arange(len(rows)), heads)
    out = np.empty_like(rows)
    out[order] = rows
    return out


def _gguf_name(own: str, architecture: str) -> str:
    if own in LLAMA_NAMES:
        return LLAMA_NAMES[own]
    parts = own.split(".")
    if parts[-2] == "post_attention_layernorm":
        inner = "post_attention_norm" if architecture in ("gemma2", "gemma3") else "ffn_norm"
    else:
        inner = LLAMA_NAMES[parts[-2]]
    return f"blk.{parts[2]}.{inner}.{parts[-1]}"


def architecture_fields(config: Any, name: str) -> dict[str, Any]:
    """Return the metadata that describe a config of transformers."""
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    fields = {
        "general.architecture": name,
        "general.license": "apache-2.0",
        f"{name}.block_count": config.num_hidden_layers,
        f"{name}.context_length": config.max_position_embeddings,
        f"{name}.embedding_length": config.hidden_size,
        f"{name}.feed_forward_length": config.intermediate_size,
        f"{name}.attention.head_count": config.num_attention_heads,
        f"{name}.attention.head_count_kv": config.num_key_value_heads,
        f"{name}.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        f"{name}.rope.freq_base": float(rope["rope_theta"]),
    }
    width = getattr(config, "head_dim", None)
    if width and name != "qwen2":
        fields[f"{name}.attention.key_length"] = width
    if rope.get("rope_type") == "linear":
        fields |= {
            f"{name}.rope.scaling.type": "linear",
            f"{name}.rope.scaling.factor": float(rope["factor"]),
        }
    if name in ("gemma2", "gemma3"):
        fields[f"{name}.attention.sliding_window"] = config.sliding_window
    if name == "gemma2":
        fields[f"{name}.attn_logit_softcapping"] = float(config.attn_logit_softcapping)
        fields[f"{name}.final_logit_softcapping"] = float(config.final_logit_softcapping)
    return fields


def tokenizer_fields(tokenizer: Any, pre: str) -> dict[str, Any]:
    """Return the metadata that describe a byte-level BPE tokenizer."""
    import json

    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {token["id"]: token for token in inner["added_tokens"]}
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    kinds = [(3 if added[i]["special"] else 4) if i in added else 1 for i in range(len(tokens))]
    merges = inner["model"]["merges"]
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [pair if isinstance(pair, str) else " ".join(pair) for pair in merges],
        "tokenizer.ggml.add_bos_token": False,
    }
    for name, short in (("bos", "bos"), ("eos", "eos"), ("padding", "pad"), ("unknown", "unk")):
        if (number := getattr(tokenizer, f"{short}_token_id")) is not None:
            fields[f"tokenizer.ggml.{name}_token_id"] = number
    if tokenizer.chat_template:
        fields["tokenizer.chat_template"] = tokenizer.chat_template
    return fields
