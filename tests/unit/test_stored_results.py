"""Results of reading a model in the store."""

from __future__ import annotations

import pytest
import torch

from caft_utils.residual import edit
from caft_utils.store import Store
from caft_utils.stored_results import fetch_json, fetch_tensors

KEY = {"format": 1, "of": "a test"}


class Counted:
    def __init__(self, value):
        self.value, self.calls = value, 0

    def __call__(self):
        self.calls += 1
        return self.value


def test_a_value_is_computed_once_and_read_back_alike(tmp_path):
    compute = Counted({"pair": (1, 0.1), "none": None})
    first, second = (fetch_json("test", KEY, compute, store=Store(tmp_path)) for _ in range(2))
    assert first == second == {"pair": [1, 0.1], "none": None} and compute.calls == 1
    fetch_json("test", KEY | {"of": "another"}, compute, store=Store(tmp_path))
    assert compute.calls == 2


def test_tensors_keep_dtype_and_infinity_and_may_share_memory(tmp_path):
    whole = torch.tensor([[1.0, -torch.inf], [0.1, 3.0]])
    compute = Counted(
        {"column": whole[:, 1], "whole": whole, "ids": torch.arange(3), "none": torch.zeros(0, 4)}
    )
    first, second = (fetch_tensors("test", KEY, compute, store=Store(tmp_path)) for _ in range(2))
    for name, tensor in compute.value.items():
        for read in (first, second):
            assert torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype
    assert compute.calls == 1


def test_without_a_key_nothing_is_stored(tmp_path):
    compute = Counted((1, 2))
    assert [fetch_json("test", None, compute, store=Store(tmp_path)) for _ in range(2)] == [(1, 2)] * 2
    assert compute.calls == 2 and not list(tmp_path.iterdir())


def test_a_model_with_hooks_neither_reads_nor_writes(tmp_path, model):
    compute, how = Counted(1), {"models": [model], "store": Store(tmp_path)}
    with edit(model, {0: torch.zeros_like}):
        fetch_json("test", KEY, compute, **how)
    assert compute.calls == 1 and not list(tmp_path.iterdir())
    fetch_json("test", KEY, compute, **how)
    with edit(model, {0: torch.zeros_like}):
        fetch_json("test", KEY, compute, **how)
    assert compute.calls == 3
    fetch_json("test", KEY, compute, **how)
    assert compute.calls == 3


def test_a_damaged_result_is_computed_again(tmp_path):
    compute, store = Counted([1, 2]), Store(tmp_path)
    fetch_json("test", KEY, compute, store=store)
    (store.get("test", KEY) / "value.json").write_text("[1, 3]")
    with pytest.warns(UserWarning, match="damaged"):
        assert fetch_json("test", KEY, compute, store=store) == [1, 2]
    assert compute.calls == 2
