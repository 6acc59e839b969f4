"""Stored results of slow computations in notebooks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from caft_utils.course.records import code_version
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

    Args:
        name: names the value, for example "scores of known directions".
        depends_on: all inputs that may differ, as JSON: fingerprints of models and texts, seeds, sizes.
        compute: returns a JSON value. The first call also reads the value back from JSON, so that every call
            returns lists in place of tuples.
        functions: functions of the notebook that `compute` calls. Their source and the code of this package
            are part of the key, so editing either recomputes the value.
    """
    key = {
        "name": name,
        "depends on": dict(depends_on),
        "package": code_version(),
        "source": [inspect.getsource(function) for function in functions],
    }

    return fetch_json("value", key, compute, store=store)
