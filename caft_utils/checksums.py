"""Checksums of tensors, fast enough to be taken before every use of a large model.

A tensor's bytes are read as 64-bit words x_i in rows of 2^15. The checksum of a row is

    sum_i w_i (x_i xor (x_i >> 32))    modulo 2^64,       w_i = fixed random odd numbers.

It is computed with integers on the tensor's own device, so it is exact and the same on every device. The
sums of all rows are hashed with shapes and dtypes. Without the shift, changes of the highest bits alone (the
signs of two weights) would cancel, because any odd number times 2^63 is 2^63.

The checksum detects accidental changes, not those of an attacker. It tells whether tensors changed. Names in
the store come from `store.tensors_sha256`, which takes three times as long.

Cost: 2 GB/s on one core of a server CPU, limited by integer products, and about a sixth of the memory
bandwidth of a GPU, which writes and reads intermediate results.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from weakref import ref

import torch
from torch import Tensor

ROW = 1 << 15  # words; two rows fit into the cache of a CPU core
ROWS_AT_ONCE = 1 << 10  # on a GPU: 256 MiB
SMALL = 1 << 12  # bytes of a tensor that is hashed as it is, which is faster than computing with it


def tensors_checksum(labelled: Iterable[tuple[str, Tensor]], *, start: str = "") -> str:
    """Return a checksum (hex) of `start` and of each label with the bytes, shape and dtype of its tensor.

    A tensor that occurs several times (tied weights) is read once.
    """
    hashed = sha256(start.encode())
    known: dict[int, tuple[ref[Tensor], bytes]] = {}
    for label, tensor in labelled:
        same, found = known.get(id(tensor), (None, b""))
        if same is None or same() is not tensor:
            found = _short_bytes(tensor.detach())
            known[id(tensor)] = ref(tensor), found
        hashed.update(f"{label} {tensor.dtype} {tuple(tensor.shape)};".encode() + found)
    return hashed.hexdigest()


@torch.no_grad()
def _short_bytes(tensor: Tensor) -> bytes:
    """Return the bytes of a small tensor, or the sums of the rows of a larger one."""
    if tensor.numel() * tensor.element_size() <= SMALL:
        return tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    words = _words(tensor)
    weights = _weights(words.device)
    if words.device.type != "cpu":
        return blockwise_sums(words, weights).cpu().numpy().tobytes()
    size, sums = words.numel(), []
    mixed = torch.empty(min(ROW, size), dtype=torch.int64)
    for start in range(0, size, ROW):  # row by row, so that intermediate results stay in the cache
        row = words[start : start + ROW]
        if row.numel() < ROW:
            mixed, weights = mixed[: row.numel()], weights[: row.numel()]
        torch.bitwise_right_shift(row, 32, out=mixed)
        sums.append(torch.dot(mixed.bitwise_xor_(row), weights))
    return torch.stack(sums).numpy().tobytes()


def blockwise_sums(words: Tensor, weights: Tensor) -> Tensor:
    """Return the sums of all rows, many rows at once, which suits a GPU."""
    whole = words.numel() // ROW * ROW
    blocks = [*words[:whole].view(-1, ROW).split(ROWS_AT_ONCE), words[None, whole:]]
    return torch.cat(
        [((b >> 32).bitwise_xor_(b).mul_(weights[: b.shape[1]])).sum(1) for b in blocks if b.numel()]
    )


def _words(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor as 64-bit words, padded with zeros."""
    if tensor.device.type not in ("cpu", "cuda"):
        tensor = tensor.cpu()
    data = tensor.contiguous().view(-1).view(torch.uint8)
    size = data.numel()
    if data.storage_offset() % 8 or size % 8:
        padded = data.new_zeros(-(-size // 8) * 8)
        padded[:size] = data
        data = padded
    return data.view(torch.int64)


@cache
def _weights(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(20250101)
    with torch.inference_mode(False):
        drawn = torch.randint(-(2**63), 2**63 - 1, (ROW,), generator=generator, dtype=torch.int64)
        return (drawn | 1).to(device)
