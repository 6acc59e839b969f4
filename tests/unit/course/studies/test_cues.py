"""The grid of spurious cues: which cells there are."""

from __future__ import annotations

from caft_utils.course.studies.cues import CONDITIONS, cells
from caft_utils.course.studies.cues_settings import GENDERS, NAMES, PAPER, subjects


def test_no_cell_is_listed_twice_and_every_condition_occurs():
    every = cells((0, 1))
    assert len(set(every)) == len(every)
    assert {method for _, method, _ in every} == set(CONDITIONS)
    assert {name for name, *_ in every} == {*NAMES, *GENDERS}


def test_the_main_part_has_the_settings_of_the_paper_first():
    main = cells((0,), "main")
    assert main == cells((0,))[: len(main)]
    assert {name for name, *_ in main} == {*PAPER, *GENDERS} and len(PAPER) == 16


def test_the_star_marks_the_intended_subject():
    assert subjects("verbs* | sports") == ("verbs", "sports")
    assert subjects("verbs | sports*") == ("sports", "verbs")
    assert subjects("gender") == ("case", "gender")
