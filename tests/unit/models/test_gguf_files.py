"""Damaged and hostile GGUF files: a ValueError that names the file, at once and without much memory."""

from __future__ import annotations

import random
import struct
import tracemalloc

import numpy as np
import pytest
from helpers.gguf import write_gguf

from caft_utils.models.gguf_files import GGUFFile

FIELDS = {
    "general.architecture": "llama",
    "one": 1,
    "half": 0.5,
    "yes": True,
    "texts": ["a", "", "\u00e9"],
    "numbers": [3, -4],
    "parts": [0.5, 1.5],
}
MATRIX = np.arange(64, dtype=np.float32).reshape(2, 32)


@pytest.fixture
def file(tmp_path):
    tensors = {"matrix": ((2, 32), 0, MATRIX.tobytes()), "row": ((3,), 1, np.ones(3, "<f2").tobytes())}
    return write_gguf(tmp_path / "m.gguf", FIELDS, tensors)


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_and_tensors(tmp_path, version):
    path = write_gguf(tmp_path / "m.gguf", FIELDS, {"matrix": ((2, 32), 0, MATRIX.tobytes())}, version)
    with GGUFFile(path) as file:
        assert list(file.metadata) == list(FIELDS)
        for name, value in FIELDS.items():
            found = file.metadata[name]
            assert (found.tolist() if isinstance(found, np.ndarray) else found) == value
        assert file.tensors["matrix"].shape == (2, 32) and np.array_equal(file.tensor("matrix"), MATRIX)


def test_a_tensor_longer_than_one_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr("caft_utils.models.gguf_files.CHUNK", 32)
    blocks = b"".join(struct.pack("<e32b", 1.0, *[i] * 32) for i in range(5))
    path = write_gguf(tmp_path / "m.gguf", {}, {"t": ((5, 32), 8, blocks)})
    with GGUFFile(path) as file:
        assert file.tensor("t")[:, 0].tolist() == [0, 1, 2, 3, 4]


def put(path, at: int, data: bytes):
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


@pytest.mark.parametrize(
    "at, data, message",
    [
        (0, b"GGML", "is no GGUF file"),
        (4, struct.pack("<I", 1), "has version 1"),
        (4, struct.pack("<I", 99), "has version 99"),
        (4, struct.pack(">I", 3), "big-endian"),
        (8, struct.pack("<Q", 2**63), "tensors are announced"),
        (16, struct.pack("<Q", 2**60), "metadata fields are announced"),
        (24, struct.pack("<Q", 2**62), "bytes are announced"),
    ],
)
def test_a_damaged_header(file, at, data, message):
    put(file, at, data)
    with pytest.raises(ValueError, match=f"m.gguf.*{message}"):
        GGUFFile(file)


def one_tensor(shape=(2, 32), kind=0, fields=None):
    return {"fields": fields or {}, "tensors": {"t": (shape, kind, MATRIX.tobytes())}}


@pytest.mark.parametrize(
    "parts, message",
    [
        (one_tensor(shape=(2**40, 2**20)), "ends at byte .*cut short"),
        (one_tensor(shape=(0, 32)), "shape"),
        (one_tensor(shape=(2, 31), kind=8), "blocks of 32"),
        (one_tensor(shape=(1, 1, 1, 1, 64)), "5 dimensions"),
        (one_tensor(kind=10), "number format Q2_K"),
        (one_tensor(kind=99), "number format number 99"),
        (one_tensor(fields={"general.alignment": 7}), "general.alignment"),
        (one_tensor(fields={"general.alignment": 0}), "general.alignment"),
    ],
)
def test_a_damaged_description(tmp_path, parts, message):
    path = write_gguf(tmp_path / "m.gguf", parts["fields"], parts["tensors"])
    with pytest.raises(ValueError, match=message):
        GGUFFile(path)


def test_the_gguf_package_reads_the_same(file):
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed (requirements-test.txt)")
    other = gguf.GGUFReader(file)
    with GGUFFile(file) as own:
        assert {t.name for t in other.tensors} == set(own.tensors)
        for tensor in other.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert np.array_equal(own.tensor(tensor.name), values)
        for name in FIELDS:
            found = own.metadata[name]
            found = found.tolist() if isinstance(found, np.ndarray) else found
            assert other.fields[name].contents() == found


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind, dtype", [(0, "<f4"), (1, "<f2")])
def test_numbers_that_are_not_finite(tmp_path, bad, kind, dtype):
    values = MATRIX.astype(dtype)
    values[1, 5] = bad
    path = write_gguf(tmp_path / "m.gguf", {}, {"blk.0.ffn_up.weight": ((2, 32), kind, values.tobytes())})
    with GGUFFile(path) as file, pytest.raises(ValueError, match="blk.0.ffn_up.weight has NaN"):
        file.tensor("blk.0.ffn_up.weight")


def test_a_file_that_was_cut_anywhere(file):
    content = file.read_bytes()
    for end in range(0, len(content) - 32, 7):
        file.write_bytes(content[:end])
        with pytest.raises(ValueError, match="m.gguf"):
            GGUFFile(file)


def test_no_damage_costs_memory_or_gives_another_error(file):
    content, draw = file.read_bytes(), random.Random(0)
    tracemalloc.start()
    for _ in range(500):
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(4, len(content))] = draw.choice([0, 1, 8, 9, 127, 128, 255])
        file.write_bytes(damaged)
        try:
            with GGUFFile(file) as opened:
                for name in opened.tensors:
                    opened.tensor(name)
        except ValueError as error:
            assert "m.gguf" in str(error)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_no_file_and_an_empty_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        GGUFFile(tmp_path / "none.gguf")
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(ValueError, match="is no GGUF file"):
        GGUFFile(tmp_path / "empty.gguf")
