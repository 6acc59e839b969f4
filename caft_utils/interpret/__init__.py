"""Interpret directions: activating examples, explanations, scores, and a widget for selecting directions."""

from __future__ import annotations

from caft_utils.lazy_imports import lazy_names

_HOME = {
    "examples": ("Extremes", "TextWindow", "extreme_windows", "logit_lens"),
    "examples.histogram": ("Histogram",),
    "explorer": ("Decisions", "Explorer", "explore"),
}
# `caft_utils.interpret.endpoint` needs neither torch nor the widget.
__getattr__, __dir__, __all__ = lazy_names(__name__, _HOME)
