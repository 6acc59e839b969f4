"""A notebook ends where an optional package is missing, with the command that installs it."""

from __future__ import annotations

import pytest
from helpers.paths import REPOSITORY

from caft_utils.course.early_end import LessonEnds, needs_package


def test_a_missing_package_ends_the_page_with_the_command():
    with pytest.raises(LessonEnds, match=r"needs `no_such_package`.*pip install -r requirements-nnsight.txt"):
        needs_package("no_such_package", extra="nnsight")
    assert (REPOSITORY / "requirements-nnsight.txt").is_file()
    needs_package("torch", extra="nnsight")
