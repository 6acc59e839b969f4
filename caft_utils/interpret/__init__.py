"""Interpret directions: activating examples, explanations, scores, and a widget for selecting directions."""

from __future__ import annotations

from importlib import import_module

_HOME = {
    "examples": ("Extremes", "TextWindow", "extreme_windows", "logit_lens"),
    "examples.histogram": ("Histogram",),
    "explorer": ("Decisions", "Explorer", "explore"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE)


def __getattr__(name: str):
    # Lazy (PEP 562): `caft_utils.interpret.endpoint` needs neither torch nor the widget.
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULE[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
