"""Checksums of tensors: exact, the same on every device, sensitive to every bit and its place."""

from __future__ import annotations

import pytest
import torch

from caft_utils.checksums import ROW, _short_bytes, _weights, _words, blockwise_sums, tensors_checksum


def checksum(tensor):
    return tensors_checksum([("x", tensor)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int8, torch.bool])
@pytest.mark.parametrize("size", [0, 1, 7, 4 * ROW - 1, 9 * ROW + 3])
def test_one_changed_element_changes_it(dtype, size):
    x = (torch.arange(size) % 3).to(dtype)
    assert checksum(x) == checksum(x.clone())
    for place in {0, size // 2, size - 1} if size else ():
        other = x.clone()
        other[place] = not other[place]
        assert checksum(other) != checksum(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("places", [[3, 7], [0, 4, 8, 12], list(range(100))])
def test_changes_of_high_bits_do_not_cancel(dtype, places):
    x = torch.arange(1, 101).to(dtype)
    names = {checksum(x)}
    for factor in (-1, 2, 4):
        other = x.clone()
        other[places] *= factor
        names.add(checksum(other))
    assert len(names) == 4


def test_order_shape_dtype_and_label_count():
    x = torch.arange(12.0)
    variants = [x, x.flip(0), x.view(3, 4), x.view(4, 3), x.view(torch.int32), x.view(3, 4).T, x[:11]]
    assert len({checksum(one) for one in variants}) == len(variants)
    assert tensors_checksum([("a", x)]) != tensors_checksum([("b", x)]) != tensors_checksum([("b", x)] * 2)
    assert checksum(x.view(3, 4).T) == checksum(x.view(3, 4).T.contiguous())
    assert checksum(torch.arange(13.0)[1:]) == checksum(torch.arange(1.0, 13.0))  # not aligned to a word


def test_the_way_of_a_gpu_gives_the_same_sums():
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(-(2**63), 2**63 - 1, (3 * ROW + 5,), generator=generator)
    weights = _weights(torch.device("cpu"))
    row = words[-5:]
    expected = (
        sum((int(x) ^ (int(x) >> 32)) * int(w) for x, w in zip(row.tolist(), weights[:5].tolist())) % 2**64
    )
    sums = blockwise_sums(words, weights)
    assert int(sums[-1]) % 2**64 == expected and len(sums) == 4
    assert _short_bytes(words) == sums.numpy().tobytes() and torch.equal(_words(words), words)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_it_is_the_same_on_a_gpu():
    x = torch.randn(5 * ROW + 3)
    assert checksum(x) == checksum(x.cuda())
