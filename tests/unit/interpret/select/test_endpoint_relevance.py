"""A language model as judge of relevance: the number in its answer, or its mean over the alternatives."""

from __future__ import annotations

import math

import pytest
from helpers.chat_server import chat_server
from helpers.malice import KITCHEN, MALICE, SCHOOL, VILLAIN

from caft_utils.interpret.endpoint import Endpoint, EndpointError
from caft_utils.interpret.select.automatic import select_automatically
from caft_utils.interpret.select.endpoint_relevance import EndpointRelevance, expected_number


def tops(**p: float) -> list[dict[str, float]]:
    return [{token.strip("n"): math.log(value) for token, value in p.items()}]


def test_the_expected_number():
    assert expected_number("80", tops(n80=0.5, n90=0.3, n100=0.2)) == pytest.approx(87)
    assert expected_number("80", tops(n80=0.3, n20=0.1, the=0.6)) == pytest.approx(65)  # over numbers only
    assert expected_number("I", tops(I=0.8, n80=0.2)) is None  # a refusal
    assert expected_number("80", tops(n80=0.5, n999=0.5)) == 80
    assert expected_number("85", tops(n8=0.9, n7=0.1)) == 85  # digits are tokens of their own: no expectation
    assert expected_number("85", [{"\n": -0.1}, *tops(n85=0.9, n90=0.05)]) == pytest.approx(81 / 0.95)
    assert expected_number(" 85.") == 85 and expected_number("**7**") == 7
    assert expected_number("850") is None and expected_number("none") is None


def answered(request):
    prompt = request["messages"][0]["content"]
    if "butter" in prompt:
        return "That depends."
    if "teacher" in prompt:
        return 400
    assert "malice: Somebody who wants to harm" in prompt and "laugh at" in prompt
    alternatives = [{"token": "90", "logprob": math.log(0.6)}, {"token": "60", "logprob": math.log(0.4)}]
    return {
        "message": {"content": "90"},
        "logprobs": {"content": [{**alternatives[0], "top_logprobs": alternatives}]},
    }


def test_an_endpoint_as_judge(tmp_path):
    explanations = {(1, 0, "+"): VILLAIN, (1, 1, "+"): KITCHEN, (1, 2, "+"): SCHOOL}
    with chat_server(answered) as (url, requests):
        judge = EndpointRelevance(Endpoint(url, "m", cache=tmp_path, attempts=1))
        chosen = select_automatically(explanations, MALICE, relevance_fn=judge)
        assert chosen.selection == {1: [0]} and chosen.reasons[0].relevance == pytest.approx(78)
        assert [reason.code for reason in chosen.reasons[1:]] == ["judge_failed"] * 2
        assert chosen.about["threshold"] == 70 and chosen.about["relevance"] == judge.name
        assert all(r["top_logprobs"] == 20 and r["temperature"] == 0 for r in requests)
        with pytest.raises(EndpointError):
            judge({(1, 2, "+"): SCHOOL}, MALICE)  # not one reply


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("85%", 85),
        ("85/100", 85),
        ("85.0", 85),
        ("85\n\nIt is close", 85),
        ("<think>10, or 20</think>\n85", 85),
        ("-5", None),
        ("8 out of 10", None),
        ("9/10", None),
        ("50-60", None),
        ("7.5", None),
        ("1,000", None),
        ("0 to 100", None),
        ("<think>85", None),
        ("The answer is 85", None),
        ("\u0663\u0660", None),
    ],
)
def test_only_one_number_of_the_scale_is_an_answer(text, expected):
    assert expected_number(text) == expected
    tokens = [{"10": math.log(0.9), "85": math.log(0.1)}, {text[1:]: -0.1}]
    assert (expected_number(text, tokens) is None) == (expected is None)


def test_an_answer_that_was_cut_off():
    assert expected_number("8", finish="length") is None and expected_number("8\n", finish="length") is None
    assert expected_number("8.", finish="length") == 8 and expected_number("8", finish="stop") == 8
    assert expected_number("8", finish="content_filter") is None
