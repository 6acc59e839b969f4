"""Exercises of the notebooks: their checks, and the notebooks for students, lecturers and nbgrader."""

from caft_utils.course.exercises.checks import checking, require_right

__all__ = ["checking", "require_right"]
