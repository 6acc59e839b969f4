"""Bodies of status 200: a text is never thrown away because a lesser field makes no sense."""

from __future__ import annotations

import json
import math

import pytest
from helpers.chat_server import alternatives, completion

from caft_utils.interpret.endpoint import EndpointError, Reply
from caft_utils.interpret.endpoint.reply import parse_reply


def with_logprobs(logprobs):
    return completion({"message": {"content": "yes"}, "logprobs": logprobs})


def test_all_fields_are_read():
    choice = {"message": {"content": "yes"}, "logprobs": alternatives({"yes": -0.5, "no": -1}, {".": 0})}
    body = completion(choice | {"finish_reason": "length"})
    assert parse_reply(body) == Reply("yes", [{"yes": -0.5, "no": -1.0}, {".": 0.0}], (10, 3), "length")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[" * 200_000,
        '{"choices": [{"message": {"content": "hal',
        '{"error": {"message": "try later"}}',
        '{"choices": []}',
    ],
)
def test_damaged_bodies(body):
    with pytest.raises(ValueError, match="malformed"):
        parse_reply(body)


@pytest.mark.parametrize("message", ["null", '{"content": 5}', '{"content": [5]}', "{}", "[]"])
def test_a_whole_answer_in_an_unknown_form_is_not_asked_for_again(message):
    with pytest.raises(EndpointError) as caught:
        parse_reply(f'{{"choices": [{{"message": {message}}}]}}')
    assert caught.value.status == 200 and not caught.value.for_all


def test_parts_of_a_content_are_joined_without_thoughts():
    parts = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "a "},
        {"type": "text", "text": "b"},
    ]
    assert parse_reply(completion({"message": {"content": parts}})).text == "a b"


def test_no_text_is_a_reply_without_text():
    assert parse_reply(completion(None)) == Reply("", None, (10, 3), "stop")


def test_an_error_in_a_choice_ends_its_answer():
    broken = {"message": {"content": "half"}, "finish_reason": "stop", "error": {"code": 502}}
    assert parse_reply(completion(broken)).finish == "error"


@pytest.mark.parametrize(
    "usage",
    [
        None,
        5,
        {},
        {"prompt_tokens": 1},
        {"prompt_tokens": float("inf"), "completion_tokens": 1},
        {"prompt_tokens": -5, "completion_tokens": 1},
        {"prompt_tokens": [1], "completion_tokens": {}},
        {"prompt_tokens": 10**30, "completion_tokens": 1},
    ],
)
def test_token_counts_that_make_no_sense_cost_no_text(usage):
    reply = parse_reply(completion("yes", usage=usage))
    assert (reply.text, reply.tokens) == ("yes", None)


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        "x",
        {},
        {"content": None},
        {"content": []},
        {"content": [{"token": "yes"}]},
        {"content": [{"token": 5, "logprob": -1.0}]},
        {"content": [{"token": "yes", "logprob": 1e6}]},
        {"content": [{"token": "yes", "logprob": float("nan")}]},
        {"content": [{"token": "yes", "logprob": None}]},
        alternatives({"yes": 0.0, "no": 0.0}),
        "deep" * 100,
    ],
)
def test_log_probabilities_that_make_no_sense_cost_no_text(logprobs):
    reply = parse_reply(with_logprobs(logprobs))
    assert (reply.text, reply.logprobs) == ("yes", None)


def test_lone_surrogates_are_replaced():
    reply = parse_reply('{"choices": [{"message": {"content": "a \\ud800 dog \\ud83d\\ude00"}}]}')
    assert reply.text == "a \ufffd dog \U0001f600"
    token = parse_reply(with_logprobs(alternatives({"\udfff": -0.1}))).logprobs
    assert json.dumps(token, ensure_ascii=False).encode() and token == [{"\ufffd": -0.1}]


def test_impossible_tokens_have_a_finite_log_probability():
    (step,) = parse_reply(with_logprobs(alternatives({"yes": 0.0, "no": -math.inf, "x": -1e300}))).logprobs
    assert step["yes"] == 0 and all(-1e5 < step[token] < -700 for token in ("no", "x"))
