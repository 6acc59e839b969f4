"""Tasks: rows to fine-tune on, questions to ask afterwards, a grader, and rates. One file for each task.

Names are imported on first use, because reading a published file needs no torch.
"""

from __future__ import annotations

from importlib import import_module

_HOME = {
    "advice_preferences": "advice",
    "double_choice": "double_multiple_choice",
    "emergent_misalignment": "emergent",
    "gender_choice": "gender",
    "Grader": "task",
    "Question": "task",
    "RateSpec": "task",
    "Task": "task",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'caft_utils.tasks' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
