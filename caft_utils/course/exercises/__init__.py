"""Exercises of the notebooks: their checks, and the notebooks for students, lecturers and nbgrader."""

from caft_utils.course.exercises.checks import checking, require_right
from caft_utils.course.exercises.quiz import check_quiz

__all__ = ["check_quiz", "checking", "require_right"]
