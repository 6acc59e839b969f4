"""Replies on disk are whole, or count as missing."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from caft_utils.interpret.endpoint import EndpointError, Reply
from caft_utils.interpret.endpoint.response_cache import ResponseCache

NAME = "ab" * 32
REPLY = Reply("yes \ufffd", [{"yes": -0.1, "no": -2.0}], (10, 3), "stop")


@pytest.mark.parametrize("reply", [REPLY, Reply("")])
def test_what_is_stored_is_returned(tmp_path, reply):
    cache = ResponseCache(tmp_path)
    assert cache.get(NAME) is None
    cache.put(NAME, reply, request={"model": "m"})
    assert cache.get(NAME) == ResponseCache(tmp_path).get(NAME) == reply
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert json.loads(file.read_text())["request"] == {"model": "m"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "5",
        "[" * 200_000,
        '{"reply": {"text": "cut',
        '{"reply": {"text": 5, "logprobs": null, "tokens": null, "finish": null}}',
        '{"reply": {"text": "a", "logprobs": "x", "tokens": null, "finish": null}}',
        '{"reply": {"text": "a", "logprobs": [{"a": "b"}], "tokens": null, "finish": null}}',
        '{"reply": {"text": "a", "logprobs": null, "tokens": [1], "finish": null}}',
        '{"reply": {"text": "a", "logprobs": null, "tokens": 5, "finish": null}}',
        '{"reply": {"text": "a", "tokens": null, "more": 1}}',
        '{"reply": {"text": "\\ud800", "logprobs": null, "tokens": null, "finish": null}}',
        '{"reply": {"text": "a", "logprobs": null, "tokens": null, "finish": null}, "s(a256": "ae"}',
        '{"reply": {"text": "a", "logprobs": [{}], "tokens": null, "finish": null}}',
        '{"reply": {"text": "a", "logprobs": [{"a": NaN}], "tokens": null, "finish": null}}',
        '{"reply": {"text": "a", "logprobs": [{"a": 5.0}], "tokens": null, "finish": null}}',
        '{"reply": {"text": "a", "logprobs": null, "tokens": [-1, 2], "finish": null}}',
        '{"reply": {"text": "a", "logprobs": null, "tokens": null, "finish": 3}}',
    ],
)
def test_damaged_files_count_as_missing(tmp_path, content):
    cache = ResponseCache(tmp_path)
    cache.put(NAME, REPLY)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    file.write_text(content)
    assert cache.get(NAME) is None
    cache.put(NAME, REPLY)
    assert cache.get(NAME) == REPLY


def test_a_damaged_reply_counts_as_missing_and_one_of_an_older_version_does_not(tmp_path):
    cache = ResponseCache(tmp_path)
    cache.put(NAME, REPLY)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    whole = file.read_text()
    for old, new in (("yes", "yet"), ("-2.0", "-2.1"), ('"stop"', "null"), ("[10, 3]", "[10, 2]")):
        file.write_text(whole.replace(old, new, 1))
        assert cache.get(NAME) is None, old
    content = json.loads(whole)
    del content["sha256"]
    file.write_text(json.dumps(content))
    assert cache.get(NAME) == REPLY


def test_errors_are_not_stored_and_damaged_files_are_replaced(server, endpoint, say, tmp_path):
    with pytest.raises(EndpointError):
        endpoint(attempts=1).chat(say("500 1"))
    assert endpoint(attempts=1).chat(say("500 1")).text == "you said: 500 1"
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(file.read_bytes()[:-20])
    assert endpoint().chat(say("500 1")).text == "you said: 500 1" and server.calls["500 1"] == 3
    assert endpoint().chat(say("500 1")) and server.calls["500 1"] == 3


def test_a_cache_that_cannot_be_written_costs_no_reply(endpoint, say, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="could not be stored"):
        assert endpoint(cache=tmp_path / "file").chat(say("a")).text == "you said: a"


def test_replies_go_to_the_store_by_default(endpoint, say, store_folder):
    endpoint(cache=None).chat(say("a"))
    assert len(list((store_folder / "replies").rglob("*.json"))) == 1


def test_the_reply_to_another_request_is_not_taken(server, endpoint, say, tmp_path):
    endpoint().chat_all([say("a"), say("b")])
    one, two = tmp_path.rglob("*.json")
    one.write_bytes(two.read_bytes())
    assert [reply.text for reply in endpoint().chat_all([say("a"), say("b")])] == [
        "you said: a",
        "you said: b",
    ]
    assert server.calls.total() == 3


def test_two_calls_at_once_pay_for_a_prompt_once(server, endpoint, say):
    server.on_call = lambda total: time.sleep(0.1)
    prompts = [say(f"hello {i}") for i in range(3)]
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(endpoint().chat_all, prompts) for _ in range(3)]
        assert len({str(call.result()) for call in calls}) == 1
    assert server.calls.total() == 3


def test_a_reply_without_text_is_paid_for_once(server, endpoint, say):
    for _ in range(2):
        with pytest.raises(EndpointError, match="without text"):
            endpoint().chat(say("textless"))
        assert isinstance(endpoint().chat_all([say("textless")])[0], EndpointError)
    assert server.calls.total() == 1
