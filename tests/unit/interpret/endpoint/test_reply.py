"""Bodies of status 200: a text is never thrown away because a lesser field makes no sense."""

from __future__ import annotations

import json

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
        '{"choices": [{"message": {"content": 5}}]}',
        '{"choices": [{"message": null}]}',
    ],
)
def test_damaged_bodies(body):
    with pytest.raises(ValueError, match="malformed"):
        parse_reply(body)


def test_no_text_is_an_error_of_the_prompt():
    with pytest.raises(EndpointError) as caught:
        parse_reply(completion(None))
    assert caught.value.status == 200 and not caught.value.for_all


@pytest.mark.parametrize(
    "usage", [None, 5, {}, {"prompt_tokens": 1}, {"prompt_tokens": float("inf"), "completion_tokens": 1}]
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
