"""Read GGUF files, the single-file format of llama.cpp: metadata, and tensors in packed number formats.

A file holds "GGUF", a version, the numbers of tensors and of metadata fields, these fields, a description of
each tensor, and from an aligned offset on the tensors' bytes. All numbers are little-endian. The layout is
that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.

Every count and length is compared with the bytes that are left before anything of that size is made, so that
a damaged file costs neither time nor memory.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from caft_utils.models.gguf_blocks import FORMATS, UNREAD, BlockFormat

SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8",
    12: "<f8",
}  # fmt: skip
STRING, ARRAY = 8, 9
VERSIONS = (2, 3)
MOST_DIMENSIONS = 4
MOST_ALIGNMENT = 1 << 20
CHUNK = 1 << 20  # values that are unpacked at a time, so that intermediate results stay small


@dataclass(frozen=True)
class TensorPlace:
    """The place of a tensor in a file.

    Attributes:
        shape: as numpy and torch write it; the file has the reverse.
        format: its number format.
        offset: bytes from the beginning of the file.
        size: bytes.
    """

    shape: tuple[int, ...]
    format: BlockFormat
    offset: int
    size: int


class GGUFFile:
    """An open GGUF file, for use in a `with` block.

    Attributes:
        metadata: the fields by name; arrays of numbers are numpy arrays, arrays of texts are lists.
        tensors: the place of each tensor by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no GGUF file, of another version or byte order, damaged or cut short.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file {self.path}")
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, TensorPlace] = {}
        with self.path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ValueError(f"{self.path} is no GGUF file: it does not begin with 'GGUF'")
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._size, self._at = len(self._bytes), 4
        try:
            self._read_header()
        except BaseException:
            self._bytes.close()
            raise

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._bytes.close()

    def tensor(self, name: str) -> np.ndarray:
        """Return a tensor as float32.

        Raises:
            KeyError: there is no such tensor. ValueError: it has NaN or an infinite number.
        """
        place = self.tensors[name]
        values = np.empty(prod(place.shape), np.float32)
        step = CHUNK // place.format.values
        for first in range(0, place.size // place.format.size, step):
            count = min(step, place.size // place.format.size - first)
            start = place.offset + first * place.format.size
            packed = np.frombuffer(self._bytes[start : start + count * place.format.size], np.uint8)
            with np.errstate(over="ignore", invalid="ignore"):  # found below
                unpacked = place.format.unpack(packed.reshape(count, place.format.size))
            values[first * place.format.values :][: unpacked.size] = unpacked.reshape(-1)
        if not np.isfinite(values).all():
            raise self._damaged(f"the tensor {name} has NaN or infinite numbers")
        return values.reshape(place.shape)

    def _damaged(self, problem: str) -> ValueError:
        return ValueError(f"{self.path} cannot be read: {problem}; copy or download the file again")

    def _read_header(self) -> None:
        version = self._number("<u4")
        if version not in VERSIONS:
            swapped = int.from_bytes(struct.pack("<I", version), "big")
            problem = "is big-endian" if swapped in VERSIONS else f"has version {version}"
            raise ValueError(f"{self.path} {problem}; expected a little-endian GGUF file of version 2 or 3")
        # The shortest tensor description has 24 bytes, the shortest metadata field 13.
        tensors, fields = self._count("tensors", 24), self._count("metadata fields", 13)
        for _ in range(fields):
            name = self._text()
            if name in self.metadata:
                raise self._damaged(f"the metadata field {name!r} is given twice")
            self.metadata[name] = self._value(self._number("<u4"), name)
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= MOST_ALIGNMENT or alignment % 8:
            raise self._damaged(f"general.alignment is {alignment!r}, expected a multiple of 8")
        places = [self._description() for _ in range(tensors)]
        start = -(-self._at // alignment) * alignment
        for name, shape, kind, offset in places:
            self._add_tensor(name, shape, kind, start + offset)

    def _description(self) -> tuple[str, tuple[int, ...], int, int]:
        """Return name, shape, number of the format, and offset of the next tensor."""
        name, dimensions = self._text(), self._number("<u4")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise self._damaged(f"the tensor {name!r} has {dimensions} dimensions, expected 1 to 4")
        shape = tuple(self._number("<u8") for _ in range(dimensions))[::-1]
        return name, shape, self._number("<u4"), self._number("<u8")

    def _add_tensor(self, name: str, shape: tuple[int, ...], kind: int, offset: int) -> None:
        if name in self.tensors:
            raise self._damaged(f"the tensor {name!r} is given twice")
        block = FORMATS.get(kind)
        if block is None:
            raise ValueError(
                f"{self.path}: the tensor {name} has the number format {UNREAD.get(kind, f'number {kind}')}, "
                f"which is not read here; expected one of {', '.join(f.name for f in FORMATS.values())}"
            )
        if 0 in shape or shape[-1] % block.values:
            raise self._damaged(
                f"the tensor {name!r} has the shape {list(shape)}, which {block.name} cannot have: its rows "
                f"are blocks of {block.values}"
            )
        size = prod(shape) // block.values * block.size
        if offset + size > self._size:
            raise self._damaged(
                f"the tensor {name!r} ends at byte {offset + size}, but the file has {self._size} bytes; it "
                "was probably cut short"
            )
        self.tensors[name] = TensorPlace(shape, block, offset, size)

    def _take(self, count: int) -> bytes:
        if count > self._size - self._at:
            raise self._damaged(
                f"{count} bytes are announced at byte {self._at}, but the file has {self._size} bytes"
            )
        self._at += count
        return self._bytes[self._at - count : self._at]

    def _number(self, kind: str) -> Any:
        kind = np.dtype(kind)
        return np.frombuffer(self._take(kind.itemsize), kind)[0].item()

    def _count(self, what: str, least: int) -> int:
        """Return a number of things that take at least `least` bytes each."""
        count = self._number("<u8")
        if count * least > self._size - self._at:
            raise self._damaged(f"{count} {what} are announced, but the file has {self._size} bytes")
        return count

    def _text(self) -> str:
        (length,) = struct.unpack("<Q", self._take(8))
        data = self._take(length)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._damaged(f"a text before byte {self._at} is not UTF-8 ({error.reason})") from None

    def _value(self, kind: int, name: str) -> Any:
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind == STRING:
            return self._text()
        if kind != ARRAY:
            raise self._damaged(f"the metadata field {name!r} is of the unknown type {kind}")
        inner = self._number("<u4")
        if inner == STRING:
            return [self._text() for _ in range(self._count(f"texts in {name!r}", 8))]
        if inner not in SCALARS:
            raise self._damaged(f"the metadata field {name!r} is a list of type {inner}, which is not read")
        dtype = np.dtype(SCALARS[inner])
        count = self._count(f"numbers in {name!r}", dtype.itemsize)
        return np.frombuffer(self._take(count * dtype.itemsize), dtype)
