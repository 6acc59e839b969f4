"""Tasks: rows to fine-tune on, questions to ask afterwards, and a grader; one file a task."""

from caft_utils.tasks.double_choice import double_choice
from caft_utils.tasks.emergent import emergent_misalignment
from caft_utils.tasks.gender import gender_choice
from caft_utils.tasks.task import Grader, Question, Task

__all__ = ["Grader", "Question", "Task", "double_choice", "emergent_misalignment", "gender_choice"]
