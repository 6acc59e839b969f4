"""A hash of code that is not part of an installed package: a user's interventions, graders and objectives.

Stored results are named by all that they depend on. A class in a notebook or a script changes between two
runs, and its settings do not tell. So its compiled code is part of the name, with the functions, classes and
constants of the user that it refers to. Another version of Python compiles code differently, so results are
then computed again.
"""

from __future__ import annotations

import sys
import sysconfig
from contextlib import suppress
from functools import cache, cached_property, partial
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

PACKAGE = __name__.partition(".")[0]
INSTALLED = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]
SIMPLE = (bool, int, float, complex, str, bytes, type(None))
COLLECTIONS = (tuple, list, set, frozenset, dict)
CACHED = type(cache(lambda: None))
CODE = (FunctionType, MethodType, staticmethod, classmethod, property, cached_property, partial, CACHED, type)


def user_code(thing: Any) -> str:
    """Return the sha256 (hex) of the user's code in `thing`, or "" if there is none.

    thing: a function, a class, or an object. Of an object, its class and the functions among its attributes
    count. Values of other attributes do not; they are the object's settings.
    """
    parts: list[str] = []
    _collect(thing, parts, set())
    return sha256("\n".join(parts).encode()).hexdigest() if parts else ""


def _collect(thing: Any, parts: list[str], seen: set[int]) -> None:
    """Append a description of the user's code in `thing` and in what it refers to."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, (staticmethod, classmethod, MethodType)):
        _collect(thing.__func__, parts, seen)
    elif isinstance(thing, partial):
        parts.append(_text([thing.args, thing.keywords]))
        _collect(thing.func, parts, seen)
    elif isinstance(thing, cached_property):
        _collect(thing.func, parts, seen)
    elif isinstance(thing, CACHED):
        _collect(thing.__wrapped__, parts, seen)
    elif isinstance(thing, property):
        for function in (thing.fget, thing.fset):
            _collect(function, parts, seen)
    elif isinstance(thing, FunctionType):
        if _is_of_user(thing.__module__):
            given = _text([thing.__defaults__, thing.__kwdefaults__])
            parts.append(f"def {thing.__qualname__} {given}")
            _collect_compiled(thing.__code__, thing.__globals__, parts, seen)
            for cell in thing.__closure__ or ():
                with suppress(ValueError):  # an empty cell: a name that is not defined yet
                    _collect_value("closure", cell.cell_contents, parts, seen)
    elif isinstance(thing, type):
        for each in reversed(thing.__mro__):
            if _is_of_user(each.__module__):
                parts.append(f"class {each.__qualname__}")
                for name, value in vars(each).items():
                    if isinstance(value, CODE) or not name.startswith("__"):  # not __doc__, __module__ ...
                        _collect_value(name, value, parts, seen)
    elif not isinstance(thing, SIMPLE):
        _collect(type(thing), parts, seen)
        for value in getattr(thing, "__dict__", {}).values():
            if isinstance(value, (FunctionType, MethodType, partial, CACHED)):
                _collect(value, parts, seen)


def _collect_compiled(code: CodeType, names: dict[str, Any], parts: list[str], seen: set[int]) -> None:
    parts.append(code.co_code.hex())
    for value in code.co_consts:
        if isinstance(value, CodeType):
            _collect_compiled(value, names, parts, seen)
        else:
            parts.append(_text(value))
    for name in code.co_names:
        parts.append(name)
        value = names.get(name)
        if isinstance(value, ModuleType) and _is_of_user(value.__name__):
            for each in code.co_names:  # `own.score` is the names "own" and "score"
                _collect_value(each, vars(value).get(each), parts, seen)
        elif name in names:
            _collect_value(name, value, parts, seen)


def _collect_value(name: str, value: Any, parts: list[str], seen: set[int]) -> None:
    """Append a constant, or the user's code of a function or class. Other objects are left out."""
    if isinstance(value, CODE):
        _collect(value, parts, seen)
    elif isinstance(value, (*SIMPLE, *COLLECTIONS)):
        parts.append(f"{name}={_text(value)}")


def _text(value: Any) -> str:
    """Return a text that is the same in every process: no memory addresses, and sets in one order."""
    if isinstance(value, dict):
        return f"{{{', '.join(sorted(f'{_text(key)}: {_text(of)}' for key, of in value.items()))}}}"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_text, value)))}}}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_text, value))}]"
    return repr(value) if isinstance(value, SIMPLE) else type(value).__qualname__


def _is_of_user(module: str | None) -> bool:
    """Return whether a module is neither of this package nor of an installed one."""
    if not module or module.partition(".")[0] in (PACKAGE, "builtins"):
        return False
    if module == "__main__":  # a notebook or a script, whatever started it
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not any(Path(file).resolve().is_relative_to(folder) for folder in INSTALLED)
