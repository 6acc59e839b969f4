"""Number formats of GGUF tensors: packed blocks -> float32.

A quantised format cuts each row into blocks of 32 or 256 numbers. A block stores small integers q with a
scale d, and in some formats an offset m, both as 16-bit floats:

    Q4_0, Q5_0, Q8_0    x = d q              q is signed
    Q4_1, Q5_1          x = d q + m          q is not
    Q6_K                x = d s q            s is one of 16 whole scales, each for 16 numbers
    Q4_K, Q5_K          x = d s q - m t      s and t are whole, one pair for each 32 numbers

Products are rounded to float32 in the order of these formulas, as ggml does, so the numbers are the same bit
for bit. The formats are those of ggml (https://github.com/ggml-org/ggml, struct block_q4_1 and so on).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

Blocks = UInt8[np.ndarray, "blocks bytes"]
Values = Float32[np.ndarray, "blocks values"]


@dataclass(frozen=True)
class BlockFormat:
    """A number format.

    Attributes:
        name: its name in ggml.
        values: numbers in a block.
        size: bytes of a block.
        unpack: bytes [blocks, size] -> numbers [blocks, values].
    """

    name: str
    values: int
    size: int
    unpack: Callable[[Blocks], Values]


def _half(blocks: Blocks, at: int) -> Values:
    """Return the 16-bit float at byte `at` of each block, [blocks, 1]."""
    return blocks[:, at : at + 2].copy().view("<f2").astype(np.float32)


def _nibbles(packed: Blocks) -> UInt8[np.ndarray, "blocks values"]:
    """Return the low halves of all bytes, then the high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _fifth_bits(blocks: Blocks, at: int) -> UInt8[np.ndarray, "blocks 32"]:
    """Return the 32 bits at byte `at` of each block, the lowest first, at the place of a fifth bit."""
    return np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little") << 4


def _f32(blocks: Blocks) -> Values:
    return blocks.copy().view("<f4").astype(np.float32, copy=False)


def _f16(blocks: Blocks) -> Values:
    return blocks.copy().view("<f2").astype(np.float32)


def _bf16(blocks: Blocks) -> Values:
    return (blocks.copy().view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q8_0(blocks: Blocks) -> Values:
    return _half(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _q4_0(blocks: Blocks) -> Values:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: Blocks) -> Values:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]).astype(np.float32) + _half(blocks, 2)


def _q5_0(blocks: Blocks) -> Values:
    numbers = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)
    return _half(blocks, 0) * (numbers.astype(np.float32) - 16)


def _q5_1(blocks: Blocks) -> Values:
    numbers = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)
    return _half(blocks, 0) * numbers.astype(np.float32) + _half(blocks, 2)


def _pairs_of_scales(packed: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Return the eight 6-bit scales s and offsets t that Q4_K and Q5_K pack into 12 bytes.

    The first four of each lie in the low 6 bits of bytes 0-3 and 4-7. The last four have their low 4 bits in
    bytes 8-11, and their high 2 bits on top of the first four.
    """
    low, middle, last = packed[:, :4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([low & 63, (last & 15) | (low >> 6 << 4)], axis=1)
    offsets = np.concatenate([middle & 63, (last >> 4) | (middle >> 6 << 4)], axis=1)
    return scales.astype(np.float32), offsets.astype(np.float32)


def _q4_or_q5_k(blocks: Blocks, numbers: np.ndarray) -> Values:
    """Return d s q - m t of numbers q [blocks, 8, 32]."""
    scales, offsets = _pairs_of_scales(blocks[:, 4:16])
    scales, offsets = _half(blocks, 0) * scales, _half(blocks, 2) * offsets
    values = scales[:, :, None] * numbers.astype(np.float32) - offsets[:, :, None]
    return values.reshape(len(blocks), 256)


def _k_nibbles(packed: Blocks) -> UInt8[np.ndarray, "blocks 8 32"]:
    """Return 256 halves of bytes: of each 32 bytes the low ones, then the high ones."""
    groups = packed.reshape(-1, 4, 1, 32) >> np.array([0, 4], np.uint8)[:, None]
    return (groups & 15).reshape(-1, 8, 32)


def _q4_k(blocks: Blocks) -> Values:
    return _q4_or_q5_k(blocks, _k_nibbles(blocks[:, 16:]))


def _q5_k(blocks: Blocks) -> Values:
    # Bit i of byte j belongs to number j of group i.
    fifth = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return _q4_or_q5_k(blocks, _k_nibbles(blocks[:, 48:]) | fifth << 4)


def _q6_k(blocks: Blocks) -> Values:
    # Each half of a block holds four groups of 32 numbers: 64 bytes of low bits, 32 bytes of high bits.
    low = blocks[:, :128].reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8)[:, None] & 15
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    numbers = (low.reshape(-1, 2, 4, 32) | high << 4).astype(np.float32) - 32
    scales = _half(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return (scales[:, :, None] * numbers.reshape(-1, 16, 16)).reshape(-1, 256)


# By the number that a GGUF file uses for the format.
FORMATS = {
    0: BlockFormat("F32", 1, 4, _f32),
    1: BlockFormat("F16", 1, 2, _f16),
    2: BlockFormat("Q4_0", 32, 18, _q4_0),
    3: BlockFormat("Q4_1", 32, 20, _q4_1),
    6: BlockFormat("Q5_0", 32, 22, _q5_0),
    7: BlockFormat("Q5_1", 32, 24, _q5_1),
    8: BlockFormat("Q8_0", 32, 34, _q8_0),
    12: BlockFormat("Q4_K", 256, 144, _q4_k),
    13: BlockFormat("Q5_K", 256, 176, _q5_k),
    14: BlockFormat("Q6_K", 256, 210, _q6_k),
    30: BlockFormat("BF16", 1, 2, _bf16),
}
# Formats that exist and are not read, so that the refusal has a name.
UNREAD = {
    4: "Q4_2", 5: "Q4_3", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS",
    18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16",
    26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
    41: "Q1_0",
}  # fmt: skip
