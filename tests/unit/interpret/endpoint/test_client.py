"""The endpoint against a real HTTP server on this machine: requests, replies, and what is paid for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from threading import Barrier, Event

import pytest

from caft_utils.interpret.endpoint import Endpoint, EndpointError, Reply


def test_an_ordinary_answer(server, endpoint, say, key):
    client = endpoint()
    reply = client.chat(say("hello"), max_tokens=7, top_logprobs=2, seed=3)
    assert reply == Reply("you said: hello", [{"7": -0.1, "80": -2.5}], (10, 3), "stop")
    sent = {"model": "m", "messages": say("hello"), "max_tokens": 7, "temperature": 0.0, "seed": 3}
    assert server.requests == [sent | {"logprobs": True, "top_logprobs": 2}]
    assert server.requests[0].headers["Authorization"] == f"Bearer {key}"
    assert client.tokens_used == (10, 3)


def test_extra_fields_replace_and_remove(server, endpoint, say):
    endpoint(extra={"max_tokens": None, "max_completion_tokens": 9, "temperature": None}).chat(say("hello"))
    assert server.requests[0] == {"model": "m", "messages": say("hello"), "max_completion_tokens": 9}


def test_a_failure_of_one_prompt_does_not_lose_the_others(server, endpoint, say):
    prompts = [say(text) for text in ("a", "400 9", "b", "textless", "422 9", "500 9", "c")]
    replies = endpoint().chat_all(prompts)
    assert [getattr(r, "text", None) for r in replies] == [
        "you said: a", None, "you said: b", None, None, None, "you said: c"
    ]  # fmt: skip
    assert [replies[i].status for i in (1, 3, 4)] == [400, 200, 422]
    assert not any(replies[i].for_all for i in (1, 3, 4, 5))
    assert [server.calls[p] for p in ("400 9", "textless", "422 9", "500 9")] == [1, 1, 1, 4]


@pytest.mark.parametrize("what", ["401", "404"])
def test_after_a_failure_for_all_nothing_more_is_sent(server, endpoint, say, what):
    client = endpoint(workers=1)
    stored = client.chat(say("stored"))
    replies = client.chat_all([say(f"{what} 9"), *(say(f"hello {i}") for i in range(5)), say("stored")])
    assert [type(r) for r in replies] == [EndpointError] * 6 + [Reply] and replies[-1] == stored
    assert server.calls.total() == 2
    assert ("$OPENAI_API_KEY" in str(replies[0])) == (what == "401")


def test_nothing_is_paid_for_twice(server, endpoint, say):
    replies = endpoint().chat_all([say("a"), say("b"), say("a")])
    assert [r.text for r in replies] == ["you said: a", "you said: b", "you said: a"]
    assert server.calls == {"a": 1, "b": 1}
    assert endpoint(per_minute=0.001).chat_all([say("b"), say("a")]) == replies[1::-1]  # waits for nothing
    assert endpoint().chat(say("a")) == replies[0] and server.calls.total() == 2


@pytest.mark.parametrize(
    "ask",
    [
        lambda endpoint, say: endpoint("other").chat(say("a")),
        lambda endpoint, say: endpoint().chat(say("a"), temperature=1.0),
        lambda endpoint, say: endpoint().chat(say("a"), temperature=1.0, seed=1),
        lambda endpoint, say: endpoint(extra={"top_p": 0.5}).chat(say("a")),
        lambda endpoint, say: endpoint().chat([{"role": "system", "content": "a"}, *say("a")]),
    ],
)
def test_another_request_has_another_reply(server, endpoint, say, ask):
    endpoint().chat(say("a"))
    assert ask(endpoint, say) == ask(endpoint, say) and server.calls.total() == 2


def test_an_interrupted_run_continues_where_it_stopped(server, endpoint, say):
    def interrupt(total):
        if total == 5:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)

    server.on_call, prompts = interrupt, [say(f"hello {i}") for i in range(12)]
    with pytest.raises(KeyboardInterrupt):
        endpoint(workers=1).chat_all(prompts)
    assert 5 <= server.calls.total() < 12
    replies = endpoint(workers=2).chat_all(prompts)
    assert [r.text for r in replies] == [f"you said: hello {i}" for i in range(12)]
    assert server.calls.total() == 12  # the reply in flight at the interruption was stored too


def test_an_interruption_ends_waits(server, endpoint, say):
    server.on_call = lambda total: os.kill(os.getpid(), signal.SIGINT)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        endpoint().chat_all([say("429 9 290")])
    assert time.monotonic() - started < 100


def test_an_interruption_while_requests_are_handed_out_ends_waits(server, endpoint, say, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    submit, waiting = ThreadPoolExecutor.submit, Event()
    server.on_call = lambda total: waiting.set()

    def interrupted(pool, *args):
        if waiting.is_set():
            raise KeyboardInterrupt
        future = submit(pool, *args)
        assert waiting.wait(60)
        return future

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        endpoint().chat_all([say("429 9 290"), say("hello")])
    assert time.monotonic() - started < 100


KILLED = """
import sys
from caft_utils.interpret.endpoint import Endpoint
assert "torch" not in sys.modules  # seconds
endpoint = Endpoint(sys.argv[1], "m", cache=sys.argv[2], workers=1)
endpoint.chat_all([[{"role": "user", "content": f"hello {i}"}] for i in range(12)])
"""


def test_a_killed_run_continues_too(server, endpoint, say, tmp_path):
    def kill(total):
        if total == 5:
            process.kill()

    server.on_call = kill
    process = subprocess.Popen([sys.executable, "-c", KILLED, server.url, str(tmp_path / "replies")])
    assert process.wait(60) == -signal.SIGKILL
    server.on_call = None
    replies = endpoint().chat_all([say(f"hello {i}") for i in range(12)])
    assert [r.text for r in replies] == [f"you said: hello {i}" for i in range(12)]
    assert server.calls.total() == 13 and server.calls["hello 4"] == 2  # only the one in flight was lost


def test_workers_send_side_by_side(server, endpoint, say):
    everybody = Barrier(4)
    server.on_call = lambda total: everybody.wait(30)  # breaks unless four requests are in flight at once
    replies = endpoint(workers=4, attempts=1).chat_all([say(f"hello {i}") for i in range(8)])
    assert all(isinstance(reply, Reply) for reply in replies) and not everybody.broken


def test_an_estimate_before_a_run(server, endpoint, say):
    prompts = [say("x" * 400), say("y" * 40), say("y" * 40)]
    client = endpoint(price=(2.0, 10.0), per_minute=4)
    guess = client.estimate(prompts, max_tokens=50)
    assert (guess.prompts, guess.cached, guess.tokens_in, guess.tokens_out) == (3, 1, 104 + 14, 100)
    assert guess.cost == pytest.approx((118 * 2 + 100 * 10) / 1e6) and guess.minutes == 0.5
    assert all(number in repr(guess) for number in ("3 prompts", "1 of them", "$0.0012", "0.5 min"))
    assert server.calls.total() == 0
    endpoint().chat(prompts[0], max_tokens=50)
    assert client.estimate(prompts, max_tokens=50).tokens_in == 14
    unknown = endpoint().estimate(prompts)
    assert unknown.cost is None and "unknown" in repr(unknown)
    assert endpoint().estimate([say("\ud800")]).tokens_in > 0


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/v1",
        "host/v1",
        "https://user:hunter2@h/v1",
        "https://h/v1?api_key=hunter2",
        "https://h/#hunter2",
    ],
)
def test_addresses_that_are_refused(url):
    with pytest.raises(ValueError, match="base_url") as caught:
        Endpoint(url, "m")
    assert "hunter2" not in str(caught.value)
