"""Number formats: every bit of a block at its place, and the same numbers as the gguf package."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.gguf import bf16, f16, f32, q4_0, q4_1, q8_0

from caft_utils.models.gguf_blocks import FORMATS

BY_NAME = {block.name: block for block in FORMATS.values()}


def unpack(name: str, data: bytes) -> np.ndarray:
    block = BY_NAME[name]
    packed = np.frombuffer(data, np.uint8).reshape(-1, block.size)
    return block.unpack(packed).reshape(-1)


@pytest.mark.parametrize("pack", [f32, f16, bf16, q8_0, q4_0, q4_1])
def test_what_was_packed_comes_back(pack):
    values = np.random.default_rng(0).normal(size=320).astype(np.float32)
    kind, data, expected = pack(values)
    assert np.array_equal(unpack(FORMATS[kind].name, data), expected)
    assert np.abs(expected - values).max() < 0.3


def halves(*values: float) -> bytearray:
    return bytearray(np.array(values, "<f2").tobytes())


@pytest.mark.parametrize("name", ["Q5_0", "Q5_1"])
def test_fifth_bits(name):
    q = np.random.default_rng(1).integers(0, 32, 32)
    data = halves(0.5) if name == "Q5_0" else halves(0.5, -2.0)
    bits = sum((int(q[i]) >> 4) << i for i in range(32))
    data += bits.to_bytes(4, "little")
    data += bytes(int(q[i]) & 15 | (int(q[i + 16]) & 15) << 4 for i in range(16))
    expected = 0.5 * (q - 16.0) if name == "Q5_0" else 0.5 * q - 2.0
    assert np.array_equal(unpack(name, bytes(data)), expected)


@pytest.mark.parametrize("name", ["Q4_K", "Q5_K"])
def test_scales_and_offsets_of_six_bits(name):
    draw = np.random.default_rng(2)
    q = draw.integers(0, 16 if name == "Q4_K" else 32, 256)
    scales, offsets = draw.integers(0, 64, 8), draw.integers(0, 64, 8)
    packed = bytearray(12)
    for i in range(4):
        packed[i] = int(scales[i] | scales[i + 4] >> 4 << 6)
        packed[i + 4] = int(offsets[i] | offsets[i + 4] >> 4 << 6)
        packed[i + 8] = int(scales[i + 4] & 15 | (offsets[i + 4] & 15) << 4)
    data = halves(0.25, 0.5) + packed
    if name == "Q5_K":
        data += bytes(sum((int(q[32 * g + j]) >> 4) << g for g in range(8)) for j in range(32))
    for g in range(0, 8, 2):
        low, high = q[32 * g : 32 * g + 32] & 15, q[32 * g + 32 : 32 * g + 64] & 15
        data += bytes((low | high << 4).tolist())
    expected = [0.25 * scales[i // 32] * q[i] - 0.5 * offsets[i // 32] for i in range(256)]
    assert np.array_equal(unpack(name, bytes(data)), np.array(expected, np.float32))


def test_six_bits():
    draw = np.random.default_rng(3)
    q, scales = draw.integers(0, 64, 256), draw.integers(-128, 128, 16)
    low, high = bytearray(128), bytearray(64)
    for i in range(256):
        half, place = divmod(i, 128)
        group, j = divmod(place, 32)
        low[64 * half + 32 * (group % 2) + j] |= int(q[i] & 15) << 4 * (group // 2)
        high[32 * half + j] |= int(q[i] >> 4) << 2 * group
    data = bytes(low + high) + scales.astype(np.int8).tobytes() + bytes(halves(0.125))
    expected = [0.125 * scales[i // 16] * (q[i] - 32.0) for i in range(256)]
    assert np.array_equal(unpack("Q6_K", data), np.array(expected, np.float32))


@pytest.mark.parametrize("kind", FORMATS)
def test_random_blocks_as_in_the_gguf_package(kind):
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed (requirements-test.txt)")
    block = FORMATS[kind]
    assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)] == (block.values, block.size)
    data = np.random.default_rng(kind).integers(0, 256, (400, block.size), dtype=np.uint8)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType(kind))
        found = block.unpack(data)
    assert np.array_equal(found, expected.astype(np.float32).reshape(found.shape), equal_nan=True)
