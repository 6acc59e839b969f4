"""Tasks: rows to fine-tune on, questions to ask afterwards, a grader, and rates. One file for each task."""

from caft_utils.tasks.advice import advice_preferences
from caft_utils.tasks.double_choice import double_choice
from caft_utils.tasks.emergent import emergent_misalignment
from caft_utils.tasks.gender import gender_choice
from caft_utils.tasks.task import Grader, Question, RateSpec, Task

__all__ = [
    "Grader",
    "Question",
    "RateSpec",
    "Task",
    "advice_preferences",
    "double_choice",
    "emergent_misalignment",
    "gender_choice",
]
