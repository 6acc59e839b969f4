"""Checks of exercises: right, not yet with what was expected and came, not answered, never a traceback."""

from __future__ import annotations

import pytest
import torch

from caft_utils.course.exercises import checking, require_right
from caft_utils.course.exercises.checks import RESULTS


def said(capsys, got, wanted, **options) -> str:
    with checking(7, "it was learned") as expect:
        expect("f(2)", got, wanted, "think of f", **options)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "got, wanted, options",
    [
        (4, 4, {}),
        (0.3000001, 0.3, {"within": 1e-6}),
        (torch.tensor(4.0), 4, {}),
        (True, True, {}),
        ({1: "a"}, {1: "a"}, {}),
        (torch.ones(2, 3), torch.ones(2, 3), {}),
        (torch.ones(2, 3) + 1e-6, torch.ones(2, 3), {"within": 1e-5}),
        (torch.zeros(0), torch.zeros(0), {}),
    ],
)
def test_a_right_answer_says_what_was_learned(capsys, got, wanted, options):
    assert said(capsys, got, wanted, **options) == "Exercise 7: right. It was learned.\n"
    require_right(7)


@pytest.mark.parametrize(
    "got, wanted, options, expected, came",
    [
        (5, 4, {}, "f(2) = 4", "got 5"),
        (0.31, 0.3, {"within": 1e-3}, "f(2) = 0.3 (within 0.001)", "got 0.31"),
        ("a", "b", {}, "f(2) = 'b'", "got 'a'"),
        (float("nan"), 0.3, {"within": 1.0}, "f(2) = 0.3", "got nan"),
        (True, 4, {}, "f(2) = 4", "got True"),
        (torch.ones(3), torch.ones(2, 3), {}, "a tensor of shape (2, 3)", "got a tensor of shape (3,)"),
        (1.0, torch.ones(2, 3), {}, "a tensor of shape (2, 3)", "got 1"),
        (torch.ones(2), torch.ones(2) + 0.5, {"within": 0.1}, "f(2) within 0.1", "off by up to 0.5"),
        (torch.tensor([float("nan")]), torch.zeros(1), {"within": 1.0}, "within 1", "off by up to nan"),
    ],
)
def test_a_wrong_answer_says_what_was_expected_what_came_and_the_idea(
    capsys, got, wanted, options, expected, came
):
    text = said(capsys, got, wanted, **options)
    assert text.startswith("Exercise 7: not yet. ") and expected in text and came in text
    assert "Idea: think of f" in text
    with pytest.raises(AssertionError, match="exercise 7: not yet"):
        require_right(7)


@pytest.mark.parametrize("got", [None, ...])
def test_a_stub_is_not_answered(capsys, got):
    assert said(capsys, got, 4) == "Exercise 7: not answered yet (f(2) gives nothing so far).\n"
    with pytest.raises(AssertionError, match="not answered"):
        require_right(7)


def test_an_error_in_the_answer_is_told_without_a_traceback(capsys):
    with checking(7) as expect:
        expect("f(2)", 1 / 0, 4, "no")
    assert capsys.readouterr().out == "Exercise 7: not yet. ZeroDivisionError: division by zero.\n"


def test_an_interrupt_goes_through():
    with pytest.raises(KeyboardInterrupt), checking(7):
        raise KeyboardInterrupt
    with pytest.raises(AssertionError, match="did not finish"):
        require_right(7)


def test_a_check_that_never_ran_is_not_right():
    RESULTS.pop(8, None)
    with pytest.raises(AssertionError, match="has not run"):
        require_right(8)


def test_a_later_wrong_answer_replaces_a_right_one(capsys):
    said(capsys, 4, 4)
    said(capsys, 5, 4)
    with pytest.raises(AssertionError):
        require_right(7)
