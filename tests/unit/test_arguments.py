"""Settings: scalars of numpy and torch are taken as Python's own, nonsense is refused by name."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from caft_utils.arguments import (
    checked,
    flag,
    from_fields,
    instance,
    key_number,
    mapping,
    number,
    texts,
    whole,
    wholes,
)


@pytest.mark.parametrize(
    "value, expected",
    [
        (3, 3),
        (0.5, 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.array(2), 2),
        (torch.tensor(0.5), 0.5),
        ("1e-4", 1e-4),
    ],
)
def test_numbers_become_pythons_own(value, expected):
    got = number("lr", value)
    assert got == expected and type(got) is type(expected) and json.dumps(got)


@pytest.mark.parametrize(
    "value", [True, np.bool_(True), None, "0.5", "x", [1], float("nan"), float("-inf"), np.float32("inf")]
)
def test_what_is_no_number_is_refused_by_name(value):
    with pytest.raises(ValueError, match="^lr must be"):
        number("lr", value)


@pytest.mark.parametrize(
    "limits, good, wrong",
    [
        ({"low": 0, "high": 1}, (0, 1), (-1e-9, 1.1)),
        ({"above": 0}, (1e-9,), (0, -1)),
        ({"low": 0, "below": 1}, (0, 0.99), (1, -0.1)),
    ],
)
def test_limits(limits, good, wrong):
    assert [number("x", value, **limits) for value in good] == list(good)
    for value in wrong:
        with pytest.raises(ValueError, match="x must be"):
            number("x", value, **limits)


@pytest.mark.parametrize("value", [3, 3.0, np.int32(3), torch.tensor(3), np.float64(3)])
def test_whole_numbers(value):
    assert whole("k", value) == 3 and type(whole("k", value)) is int


@pytest.mark.parametrize("value", [True, 1.7, "3", None, float("inf"), float("nan"), torch.tensor(True)])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ValueError, match="k must be a whole number"):
        whole("k", value)


@pytest.mark.parametrize("values", [[1, 2], (1, 2), range(1, 3), np.array([1, 2]), torch.tensor([1, 2])])
def test_lists_of_whole_numbers(values):
    assert wholes("layers", values) == [1, 2]


@pytest.mark.parametrize("values", [1, "12", [1, 1.7], [True], None])
def test_what_is_no_list_of_whole_numbers_is_refused(values):
    with pytest.raises(ValueError, match="layers"):
        wholes("layers", values)


def test_keys_of_json_are_numbers_as_text():
    assert [key_number("layer", value) for value in ("3", "-1", 3)] == [3, -1, 3]
    with pytest.raises(ValueError, match="layer"):
        key_number("layer", "three")


def test_flags_and_texts():
    assert flag("bf16", np.bool_(True)) is True
    for value in ("no", 1, None):
        with pytest.raises(ValueError, match="bf16 must be true or false"):
            flag("bf16", value)
    for value in ("one", [], [1], [""], None):
        with pytest.raises(ValueError, match="names"):
            texts("names", value)


def test_an_unknown_field_is_named_with_the_nearest_known_one():
    @dataclass
    class Config:
        learning_rate: float
        steps: int = 1

    assert from_fields(Config, "config", {"learning_rate": 1}) == Config(1)
    with pytest.raises(ValueError, match="'learning_rat'.*mean 'learning_rate'"):
        from_fields(Config, "config", {"learning_rat": 1})
    with pytest.raises(ValueError, match="config: missing.*learning_rate"):
        from_fields(Config, "config", {})
    with pytest.raises(ValueError, match="fields"):
        mapping("file.yaml", ["a"])


def test_arguments_with_shared_names_are_checked_and_others_passed_on():
    @checked
    def function(layers, *, k: int = 2, temperature: float | None = None, other=None):
        return layers, k, temperature, other

    assert function({1: "a"}, k=np.int64(3), other=True) == ([1], 3, None, True)
    for wrong in ({"layers": [1.5]}, {"layers": [1], "k": True}, {"layers": [1], "temperature": -1}):
        with pytest.raises(ValueError, match=list(wrong)[-1]):
            function(**wrong)
    with pytest.raises(ValueError, match="k must be"):
        function([1], k=None)
    with pytest.raises(TypeError):
        function()


def test_another_type_is_refused_with_what_was_given():
    assert instance("config", {"a": 1}, (dict, list), "a dict") == {"a": 1}
    for value, given in [(3, "int"), (len, "len"), (dict, "type dict"), ([1], "list")]:
        with pytest.raises(ValueError, match=f"^config must be a text; write str.*; got .*{given}$"):
            instance("config", value, str, "a text; write str(...)")


def test_a_number_in_quotes_is_told_so():
    with pytest.raises(ValueError, match="steps must be a number, got '20'; write numbers without quotes"):
        number("steps", "20")
