"""Tasks: rows to fine-tune on, questions to ask afterwards, a grader, and rates. One file for each task."""

from __future__ import annotations

from caft_utils.lazy_imports import lazy_names

_HOME = {
    "advice": ("advice_preferences",),
    "double_multiple_choice": ("double_choice",),
    "emergent": ("emergent_misalignment",),
    "gender": ("gender_choice",),
    "task": ("Grader", "Question", "RateSpec", "Task"),
}
# `caft_utils.tasks.published_data` needs no torch.
__getattr__, __dir__, __all__ = lazy_names(__name__, _HOME)
