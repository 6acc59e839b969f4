"""Checks of arguments and of hand-edited files where they enter: numbers, flags, lists, types and fields.

Each function returns the value as plain Python, so that scalars of numpy and torch give the same keys and the
same JSON as Python's own. An integer stays an integer. A bool is never a number. A string is a number only in
the form 1e-4, which YAML 1.1 reads as a string. Every error is a ValueError that begins with the name of the
setting.
"""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from functools import partial, wraps
from math import isfinite
from numbers import Real
from typing import Any, TypeVar

T = TypeVar("T")
F = TypeVar("F", bound=Callable)
BREAKS = {"at least": operator.lt, "at most": operator.gt, "above": operator.le, "below": operator.ge}
YAML_FLOAT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


def number(
    name: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> float | int:
    """Return a finite number from `low` to `high`, greater than `above` and less than `below`."""
    plain = _plain(value)
    if isinstance(plain, str) and YAML_FLOAT.fullmatch(plain):
        plain = float(plain)
    if not isinstance(plain, Real) or isinstance(plain, bool):
        advice = "; write numbers without quotes" if isinstance(plain, str) else ""
        raise ValueError(f"{name} must be a number, got {value!r}{advice}")
    if not isfinite(plain):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    plain = plain if isinstance(plain, int | float) else float(plain)
    _check_range(name, plain, {"at least": low, "at most": high, "above": above, "below": below})
    return plain


def whole(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """Return a whole number from `low` to `high`. Accepts 2.0, but not 2.5 or True."""
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, Real) or not isfinite(plain) or plain != int(plain):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    _check_range(name, int(plain), {"at least": low, "at most": high})
    return int(plain)


def _check_range(name: str, value: float, limits: Mapping[str, float | None]) -> None:
    """Check limits given as in {"at least": 0, "below": None}; None is no limit."""
    given = {word: limit for word, limit in limits.items() if limit is not None}
    if any(BREAKS[word](value, limit) for word, limit in given.items()):
        wanted = " and ".join(f"{word} {limit}" for word, limit in given.items())
        wanted = "positive" if wanted == "above 0" else wanted
        raise ValueError(f"{name} must be {wanted}, got {value!r}")


def key_number(name: str, value: Any, low: int | None = None) -> int:
    """Return a whole number that is a key of a mapping. Accepts the strings of JSON keys, such as "3"."""
    digits = isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value)
    return whole(name, int(value) if digits else value, low)


def wholes(name: str, values: Any, low: int | None = None, high: int | None = None) -> list[int]:
    """Return a list of whole numbers. A string or a single number is refused."""
    return [whole(f"{name}, entry {n}", value, low, high) for n, value in enumerate(_listed(name, values))]


def numbers(name: str, values: Any, low: float | None = None, **limits: float | None) -> list[float | int]:
    """Return a list of finite numbers. A string or a single number is refused."""
    return [number(f"{name}, entry {n}", v, low, **limits) for n, v in enumerate(_listed(name, values))]


def flag(name: str, value: Any) -> bool:
    """Return True or False. The string "no" is refused."""
    plain = _plain(value)
    if not isinstance(plain, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return plain


def text(name: str, value: Any) -> str:
    """Return a text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be text, got {value!r}")
    return value


def texts(name: str, values: Any) -> list[str]:
    """Return a non-empty list of strings. A single string is refused."""
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ValueError(f"{name} must be a list of texts, got {values!r}")
    return [text(f"{name}, entry {n}", value) for n, value in enumerate(values)]


def instance(name: str, value: Any, kinds: type | tuple[type, ...], wanted: str) -> Any:
    """Return `value` if it is of one of these types.

    Args:
        wanted: says what is expected, and how to write it.
    """
    if not isinstance(value, kinds):
        raise ValueError(f"{name} must be {wanted}; got {kind_of(value)}")
    return value


def kind_of(value: Any) -> str:
    """Return the type of a value for an error, with the name of a function or a class."""
    own = f" {value.__name__}" if inspect.isroutine(value) or inspect.isclass(value) else ""
    return f"{type(value).__name__}{own}"


def mapping(name: str, value: Any, known: Iterable[str] | None = None, needed: Iterable[str] = ()) -> dict:
    """Return a mapping as a dict, after checking the names of its fields.

    Args:
        known: the fields there may be; None: any. needed: the fields there must be.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must hold fields such as `name: value`, got {_short(value)}")
    if known is not None:
        refuse_unknown(name, value, known)
    if missing := [field for field in needed if field not in value]:
        raise ValueError(f"{name}: missing fields {', '.join(missing)}")
    return dict(value)


def from_fields(of: type[T], name: str, value: Any) -> T:
    """Return the dataclass `of` made from a mapping of its fields."""
    known = [field.name for field in fields(of)]
    needed = [f.name for f in fields(of) if f.default is MISSING and f.default_factory is MISSING]
    values = mapping(name, value, known, needed)
    try:
        return of(**values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def refuse_unknown(name: str, given: Iterable[Any], known: Iterable[str]) -> None:
    """Refuse fields that are not `known`, and suggest the known fields with the most similar spelling."""
    known = list(known)
    for field in given:
        if field not in known:
            near = get_close_matches(str(field), known, n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"{name}: unknown field {field!r}{meant}; expected {', '.join(known)}")


def _listed(name: str, values: Any) -> list[Any]:
    if hasattr(values, "tolist") and getattr(values, "ndim", 0) == 1:  # an array of numpy or torch
        return values.tolist()
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ValueError(f"{name} must be a list of numbers, got {values!r}")
    return list(values)


def _plain(value: Any) -> Any:
    """Return a scalar of numpy or torch as Python's, and anything else unchanged."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


# Arguments that mean the same in every function of the library. Ranges that depend on a model stay there.
SHARED: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("k", "n", "width", "seed", "max_per_layer", "layer"), whole),
    **dict.fromkeys(
        ("batch_size", "samples", "max_new_tokens", "max_tokens", "keep", "max_windows"),
        partial(whole, low=1),
    ),
    **dict.fromkeys(("top_logprobs", "tokens_per_source"), partial(whole, low=0)),
    **dict.fromkeys(("threshold", "min_score", "min_similarity", "min_contrast"), number),
    **dict.fromkeys(("temperature", "chance_tolerance", "keep_ratio"), partial(number, low=0)),
    **dict.fromkeys(("target_accuracy", "min_task_accuracy"), number),
    **dict.fromkeys(("target_kl",), partial(number, above=0)),
    "top_p": partial(number, above=0, high=1),
    "layers": lambda name, value: wholes(name, list(value) if isinstance(value, Mapping) else value),
    "seeds": wholes,
}


def checked(function: F) -> F:
    """Check the arguments of `function` that have a name of `SHARED`, and pass them on as plain Python.

    None is passed on where the parameter's type allows it.
    """
    signature = inspect.signature(function)
    rules = [
        (name, SHARED[name], "None" in str(parameter.annotation))
        for name, parameter in signature.parameters.items()
        if name in SHARED
    ]

    @wraps(function)
    def with_checks(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)  # a TypeError, as the call itself would raise
        for name, rule, optional in rules:
            if name in bound.arguments and not (optional and bound.arguments[name] is None):
                bound.arguments[name] = rule(name, bound.arguments[name])
        return function(*bound.args, **bound.kwargs)

    return with_checks
