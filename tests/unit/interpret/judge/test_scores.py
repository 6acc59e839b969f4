"""A judge's reply becomes a number, or the reason why there is none."""

from __future__ import annotations

import math

import pytest

from caft_utils.interpret.endpoint import Reply
from caft_utils.interpret.judge import JudgeScore, score_of


def reply(text, *steps, finish="stop"):
    logprobs = [{token: math.log(p) for token, p in step.items()} for step in steps]
    return Reply(text, logprobs or None, None, finish)


@pytest.mark.parametrize(
    "answer, value, reading",
    [
        (reply("90", {"90": 0.6, "60": 0.4}), 78, "expectation"),
        (reply("20", {"20": 0.3, "30": 0.1, "REF": 0.4}), 22.5, "expectation"),  # over numbers only
        (
            reply("REFUSAL", {"REF": 0.6, "10": 0.3, "0": 0.1}, {"USAL": 0.99}),
            7.5,
            "expectation",
        ),  # 0.4 of mass
        (
            reply("REFUSAL", {"REF": 0.9, "10": 0.1}, {"USAL": 0.99}),
            None,
            "refusal",
        ),  # below the minimum mass
        (reply("80", {"80": 0.2, "the": 0.5}), None, "unclear"),
        (reply("80", {"80": 0.7, "999": 0.3}), 80, "expectation"),  # no number of the scale
        (reply("CODE", {"CODE": 0.99}), None, "code"),
        (reply("**NOT VALID**"), None, "not valid"),
        (reply("refusal."), None, "refusal"),
        (reply("85", {"8": 0.9, "7": 0.1}, {"5": 0.9}), 85, "text"),  # digits are tokens of their own
        (reply("85"), 85, "text"),
        (reply("I would say 85"), None, "unclear"),
        (reply("850"), None, "unclear"),
        (reply("<think>It is kind, 90</think>\n12"), 12, "text"),
        (reply("<think>It is kind, 90", finish="length"), None, "unclear"),
        (reply("85", finish="content_filter"), None, "unclear"),
        (reply("DECODE 50"), None, "unclear"),
    ],
)
def test_a_reply_is_read(answer, value, reading):
    score = score_of(answer)
    assert score.reading == reading
    assert score.value is None if value is None else score.value == pytest.approx(value)


def test_the_minimum_mass_can_be_chosen():
    answer = reply("80", {"80": 0.2, "the": 0.5})
    assert score_of(answer, min_mass=0.1) == JudgeScore(pytest.approx(80), "expectation")
