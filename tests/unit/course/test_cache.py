"""Stored values of notebooks: computed once for the same inputs and code."""

from __future__ import annotations

import pytest

from caft_utils.course.cache import stored_value
from caft_utils.course.package_code import used_code


@pytest.fixture
def value():
    calls = []

    def value(depends_on, *functions, name="demo"):
        return stored_value(name, depends_on, lambda: calls.append(1) or {"scores": (1, 2)}, *functions)

    value.calls = calls
    return value


def test_a_second_call_reads_what_the_first_computed(value):
    assert value({"seed": 1}) == value({"seed": 1}) == {"scores": [1, 2]}
    assert len(value.calls) == 1


def test_other_inputs_names_or_functions_compute_again(value):
    value({"seed": 1})
    value({"seed": 2})
    value({"seed": 1}, name="other")
    value({"seed": 1}, test_a_second_call_reads_what_the_first_computed)
    assert len(value.calls) == 4


def test_changed_code_computes_again(value, monkeypatch):
    value({})
    monkeypatch.setattr("caft_utils.course.cache.used_code", lambda sources: "other")
    value({})
    assert len(value.calls) == 2


def in_a_notebook(*cells):
    """Return a function that a notebook which has run these cells defines. It counts its calls."""
    namespace = {"In": ["", *cells], "calls": []}
    exec("def compute():\n    calls.append(1)\n    return len(calls)", namespace)
    return namespace["compute"]


def test_a_value_depends_on_the_modules_that_the_cells_import(monkeypatch, tmp_path):
    package = tmp_path / "caft_utils"
    package.mkdir()
    for name in ("__init__", "used", "other"):
        (package / f"{name}.py").write_text("")
    monkeypatch.setattr(
        "caft_utils.course.cache.used_code", lambda sources: used_code(sources, package=package)
    )
    compute = in_a_notebook("from caft_utils.used import anything", "x = 1")
    assert stored_value("demo", {}, compute) == stored_value("demo", {}, compute) == 1
    (package / "other.py").write_text("changed = True")
    assert stored_value("demo", {}, compute) == 1
    (package / "used.py").write_text("changed = True")
    assert stored_value("demo", {}, compute) == 2


def test_a_failed_computation_stores_nothing(value):
    with pytest.raises(ZeroDivisionError):
        stored_value("demo", {}, lambda: 1 / 0)
    assert value({}) == {"scores": [1, 2]}
