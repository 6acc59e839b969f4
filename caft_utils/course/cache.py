"""Stored results of slow computations in notebooks."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from caft_utils.course.package_code import used_code
from caft_utils.store import Store
from caft_utils.stored_results import fetch_json


def stored_value(
    name: str,
    depends_on: Mapping[str, Any],
    compute: Callable[[], Any],
    *functions: Callable[..., Any],
    store: Store | None = None,
) -> Any:
    """Return `compute()`, or its stored result for the same name, dependencies and code.

    The key has the code of every module of this package that the notebook has imported so far, and of the
    modules that these import (`used_code`). Not only the modules of `compute`: its inputs were made by the
    others. A change in a module that the notebook does not use leaves the value valid.

    Args:
        name: names the value, for example "scores of known directions".
        depends_on: all inputs that may differ, as JSON: fingerprints of models and texts, seeds, sizes.
        compute: returns a JSON value. The first call also reads the value back from JSON, so that every call
            returns lists in place of tuples.
        functions: functions of the notebook that `compute` calls. Their source is part of the key too.
    """
    key = {
        "name": name,
        "depends on": dict(depends_on),
        "package": used_code(_source_around(compute)),
        "source": [inspect.getsource(function) for function in functions],
    }

    return fetch_json("value", key, compute, store=store)


def _source_around(function: Callable[[], Any]) -> list[str]:
    """Return the cells that the notebook of a function has run, or the text of the function's module."""
    inside = inspect.unwrap(function).__globals__
    if cells := [cell for cell in inside.get("In", ()) if cell]:  # IPython keeps them there
        return cells
    return [inspect.getsource(sys.modules[inside["__name__"]])]
