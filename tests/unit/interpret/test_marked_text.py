"""Marks stand around runs of tokens; what is active is a share of the largest activation."""

from __future__ import annotations

from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.marked_text import active_positions, mark_tokens


def test_marks_stand_around_runs_of_tokens_and_leave_white_space_out():
    tokens = ["the", " big", " dog", "s", "\n", " bark", "."]
    window = TextWindow(tokens, [0.0] * 7, 0, 0, 0)
    assert mark_tokens(window, set()) == "the big dogs\n bark."
    assert mark_tokens(window, {2, 3}) == "the big <<dogs>>\n bark."
    assert mark_tokens(window, {0, 2, 3, 4, 6}) == "<<the>> big <<dogs>>\n bark<<.>>"


def test_active_tokens_exceed_a_share_of_the_largest_activation():
    window = TextWindow(["a", " b", " c"], [0.31, 0.29, -1.0], 0, 0, 0)
    assert active_positions(window, 1.0) == {0}
    assert active_positions(window, 0.9) == {0, 1}
