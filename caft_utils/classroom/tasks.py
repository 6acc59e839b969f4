"""The course's tasks for classroom models: the library's tasks with the rows and grader of a world."""

from caft_utils.classroom.cues.tasks import double_choice, gender_choice
from caft_utils.classroom.personas.advice_task import bad_advice
from caft_utils.classroom.personas.tasks import emergent_misalignment

__all__ = ["bad_advice", "double_choice", "emergent_misalignment", "gender_choice"]
