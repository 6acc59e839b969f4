"""Focus instruction tuning: examples with a core and a spurious feature, instructions, rows, and the task."""

from caft_utils.tasks.focus.examples import FocusExample, SpuriousFeature, agreement, draw_examples
from caft_utils.tasks.focus.instructions import (
    CORE_TYPES,
    SPURIOUS_TYPES,
    TYPES,
    WORDING,
    FocusType,
    FocusWording,
    focus_label,
)
from caft_utils.tasks.focus.published import published_examples
from caft_utils.tasks.focus.rows import FocusFormat, focus_rows, solved_examples
from caft_utils.tasks.focus.task import FocusGrader, focus_task, set_name

__all__ = [
    "CORE_TYPES",
    "SPURIOUS_TYPES",
    "TYPES",
    "WORDING",
    "FocusExample",
    "FocusFormat",
    "FocusGrader",
    "FocusType",
    "FocusWording",
    "SpuriousFeature",
    "agreement",
    "draw_examples",
    "focus_label",
    "focus_rows",
    "focus_task",
    "published_examples",
    "set_name",
    "solved_examples",
]
