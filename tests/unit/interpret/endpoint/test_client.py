"""The endpoint against a real HTTP server on this machine, which answers well, badly, late or not at all."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import pytest
from helpers.paths import REPOSITORY

from caft_utils.interpret.endpoint import Endpoint, EndpointError, Reply

KEY = "sk-test-0123456789abcdef-secret"


class Handler(BaseHTTPRequestHandler):
    """What the prompt says is what happens: "429 2" is refused twice with 429 before it is answered."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = request["messages"][-1]["content"]
        with server.lock:
            server.calls[prompt] += 1
            server.times.append(time.monotonic())
            server.headers.append(dict(self.headers))
            server.requests.append(request)
            call, total = server.calls[prompt], server.calls.total()
        if server.on_call:
            server.on_call(total)
        what, *rest = prompt.split()
        bad = call <= int(rest[0]) if rest and rest[0].isdigit() else False
        if what == "slow" and bad:
            time.sleep(1.2)
        if what == "dripping" and bad:
            self.reply(200, body="x" * 20, drip=0.1)
        elif what == "truncated" and bad:
            self.reply(200, length=10_000)
            self.close_connection = True
        elif what == "malformed" and bad:
            self.reply(200, body='{"choices": [{"message": {"content": "hal')
        elif what == "formless" and bad:
            self.reply(200, body='{"error": {"message": "try later"}}')
        elif what == "reset" and bad:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif what == "textless":
            self.reply(200, text=None)
        elif what.isdigit() and bad:
            self.reply(int(what), retry_after=rest[1] if len(rest) > 1 else None, body=server.refusal)
        else:
            self.reply(200, text=f"you said: {prompt}", logprobs=request.get("logprobs"))

    def reply(self, status, *, text="", body=None, length=None, retry_after=None, logprobs=False, drip=0.0):
        if body is None:
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            if logprobs:
                tops = [{"token": "7", "logprob": -0.1}, {"token": "80", "logprob": -2.5}]
                choice["logprobs"] = {"content": [{**tops[0], "top_logprobs": tops}]}
            usage = {"prompt_tokens": 10, "completion_tokens": 3}
            body = json.dumps({"choices": [choice], "usage": usage})
        data = body.replace("$AUTH", self.headers.get("Authorization", "none")).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(length or len(data)))
        if retry_after:
            self.send_header("Retry-After", retry_after.replace("_", " "))
        self.end_headers()
        for part in [data[i : i + 1] for i in range(len(data))] if drip else [data]:
            try:
                self.wfile.write(part)
            except OSError:
                return
            time.sleep(drip)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    httpd.lock, httpd.calls, httpd.times, httpd.headers, httpd.requests = Lock(), Counter(), [], [], []
    httpd.on_call, httpd.refusal = None, '{"error": {"message": "no"}}'
    httpd.url = f"http://127.0.0.1:{httpd.server_port}/v1"
    Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def endpoint(server, tmp_path, monkeypatch):
    """A factory of endpoints on the server that share one cache and wait for milliseconds only."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def make(model="m", **changes):
        settings = dict(cache=tmp_path / "replies", backoff=(0.01, 0.05), timeout=10, attempts=4)
        return Endpoint(server.url, model, **(settings | changes))

    return make


def say(text):
    return [{"role": "user", "content": text}]


def test_an_ordinary_answer(server, endpoint):
    asked = endpoint()
    reply = asked.chat(say("hello"), max_tokens=7, top_logprobs=2, seed=3)
    assert reply == Reply("you said: hello", [{"7": -0.1, "80": -2.5}], (10, 3), "stop")
    sent = {"model": "m", "messages": say("hello"), "max_tokens": 7, "temperature": 0.0, "seed": 3}
    assert server.requests == [sent | {"logprobs": True, "top_logprobs": 2}]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert asked.used == (10, 3)


def test_extra_fields_replace_and_remove(server, endpoint):
    endpoint(extra={"max_tokens": None, "max_completion_tokens": 9, "temperature": None}).chat(say("hello"))
    assert server.requests[0] == {"model": "m", "messages": say("hello"), "max_completion_tokens": 9}


@pytest.mark.parametrize("what", ["429", "500", "503", "reset", "truncated", "malformed", "formless"])
def test_what_passes_is_tried_again(server, endpoint, what):
    reply = endpoint().chat(say(f"{what} 2"))
    assert reply.text == f"you said: {what} 2"
    assert server.calls == {f"{what} 2": 3}


@pytest.mark.parametrize("what", ["slow", "dripping"])  # no byte in time, and bytes that never end
def test_an_answer_has_to_come_in_time(server, endpoint, what):
    assert endpoint(timeout=0.8).chat(say(f"{what} 1")).text.startswith("you said")
    assert server.calls[f"{what} 1"] >= 2


@pytest.mark.parametrize(
    ("what", "reason"),
    [("500 9", "status 500"), ("slow 9", "ReadTimeout"), ("malformed 9", "hal"), ("dripping 9", "0.3 s")],
)
def test_attempts_have_an_end(server, endpoint, what, reason):
    with pytest.raises(EndpointError, match=f"in 2 attempts.*{reason}"):
        endpoint(attempts=2, timeout=0.3 if what[0] in "sd" else 10).chat(say(what))
    assert server.calls[what] == 2


def test_waits_grow(server, endpoint):
    endpoint(backoff=(0.05, 5.0)).chat(say("500 3"))
    first, second, third = (b - a for a, b in zip(server.times, server.times[1:]))
    assert first >= 0.05 and second >= 0.1 and third >= 0.2


def test_retry_after_is_obeyed_by_all_workers(server, endpoint):
    asked = endpoint(workers=1)
    asked.chat_all([say("429 1 0.5"), say("hello")])
    assert server.times[1] - server.times[0] >= 0.5
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True).replace(" ", "_")
    asked.chat(say(f"503 1 {date}"))  # a date has whole seconds
    assert server.times[-1] - server.times[-2] >= 0.9
    both = endpoint(workers=2)
    server.times.clear()
    replies = both.chat_all([say("429 1 0.4")] + [say(f"hello {i}") for i in range(12)])
    assert all(isinstance(reply, Reply) for reply in replies)
    assert max(b - a for a, b in zip(server.times, server.times[1:])) >= 0.3  # nobody asked in the meantime


def test_a_wait_beyond_patience_is_an_error(server, endpoint):
    with pytest.raises(EndpointError, match="asks to wait 3600 s"):
        endpoint(patience=10).chat(say("429 1 3600"))
    assert server.calls.total() == 1


def test_a_failure_of_one_prompt_does_not_lose_the_others(server, endpoint):
    prompts = [say(text) for text in ("a", "400 9", "b", "textless", "422 9", "500 9", "c")]
    replies = endpoint().chat_all(prompts)
    assert [getattr(r, "text", None) for r in replies] == [
        "you said: a", None, "you said: b", None, None, None, "you said: c"
    ]  # fmt: skip
    assert [replies[i].status for i in (1, 3, 4)] == [400, 200, 422]
    assert not any(replies[i].for_all for i in (1, 3, 4, 5))
    assert [server.calls[p] for p in ("400 9", "textless", "422 9", "500 9")] == [1, 1, 1, 4]


@pytest.mark.parametrize("what", ["401", "404"])
def test_what_fails_for_all_is_not_asked_for_all(server, endpoint, what):
    asked = endpoint(workers=1)
    kept = asked.chat(say("known"))
    replies = asked.chat_all([say(f"{what} 9"), *(say(f"hello {i}") for i in range(5)), say("known")])
    assert [type(r) for r in replies] == [EndpointError] * 6 + [Reply] and replies[-1] == kept
    assert server.calls.total() == 2
    assert ("$OPENAI_API_KEY" in str(replies[0])) == (what == "401")


def test_an_empty_account_is_not_asked_again(server, endpoint):
    server.refusal = '{"error": {"code": "insufficient_quota"}}'
    with pytest.raises(EndpointError, match="insufficient_quota") as caught:
        endpoint().chat(say("429 9"))
    assert server.calls.total() == 1 and caught.value.for_all


def test_nothing_is_paid_for_twice(server, endpoint):
    replies = endpoint().chat_all([say("a"), say("b"), say("a")])
    assert [r.text for r in replies] == ["you said: a", "you said: b", "you said: a"]
    assert server.calls == {"a": 1, "b": 1}
    assert endpoint().chat_all([say("b"), say("a")]) == replies[1::-1]
    assert endpoint().chat(say("a")) == replies[0] and server.calls.total() == 2
    for other in (
        lambda: endpoint("other").chat(say("a")),
        lambda: endpoint().chat(say("a"), temperature=1.0),
        lambda: endpoint().chat(say("a"), temperature=1.0, seed=1),
        lambda: endpoint(extra={"top_p": 0.5}).chat(say("a")),
        lambda: endpoint().chat([{"role": "system", "content": "a"}, *say("a")]),
    ):
        before = server.calls.total()
        assert other() == other() and server.calls.total() == before + 1


def test_errors_are_not_kept_and_damaged_files_are_replaced(server, endpoint, tmp_path):
    with pytest.raises(EndpointError):
        endpoint(attempts=1).chat(say("500 1"))
    assert endpoint(attempts=1).chat(say("500 1")).text == "you said: 500 1"
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(file.read_bytes()[:-20])
    assert endpoint().chat(say("500 1")).text == "you said: 500 1" and server.calls["500 1"] == 3
    assert endpoint().chat(say("500 1")) and server.calls["500 1"] == 3


def test_a_cache_that_cannot_be_written_costs_no_reply(server, endpoint, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="could not be kept"):
        assert endpoint(cache=tmp_path / "file").chat(say("a")).text == "you said: a"


def test_an_interrupted_run_goes_on_where_it_stopped(server, endpoint):
    def interrupt(total):
        if total == 5:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)

    server.on_call, prompts = interrupt, [say(f"hello {i}") for i in range(12)]
    with pytest.raises(KeyboardInterrupt):
        endpoint(workers=1).chat_all(prompts)
    assert 5 <= server.calls.total() <= 6
    replies = endpoint(workers=2).chat_all(prompts)
    assert [r.text for r in replies] == [f"you said: hello {i}" for i in range(12)]
    assert server.calls.total() == 12  # also the reply under way at the interruption was kept


def test_an_interruption_ends_waits(server, endpoint):
    server.on_call = lambda total: os.kill(os.getpid(), signal.SIGINT)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        endpoint(patience=100).chat_all([say("429 9 60")])
    assert time.monotonic() - started < 5


KILLED = """
import sys, types
package = sys.modules["caft_utils.interpret"] = types.ModuleType("caft_utils.interpret")
package.__path__ = [sys.argv[3]]  # without its __init__, which imports torch: seconds
from caft_utils.interpret.endpoint import Endpoint
endpoint = Endpoint(sys.argv[1], "m", cache=sys.argv[2], workers=1)
endpoint.chat_all([[{"role": "user", "content": f"hello {i}"}] for i in range(12)])
"""


def test_a_killed_run_goes_on_too(server, endpoint, tmp_path):
    def kill(total):
        if total == 5:
            process.kill()

    server.on_call = kill
    arguments = [server.url, tmp_path / "replies", REPOSITORY / "caft_utils" / "interpret"]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *map(str, arguments)])
    assert process.wait(60) == -signal.SIGKILL
    server.on_call = None
    replies = endpoint().chat_all([say(f"hello {i}") for i in range(12)])
    assert [r.text for r in replies] == [f"you said: hello {i}" for i in range(12)]
    assert server.calls.total() == 13 and server.calls["hello 4"] == 2  # only the one under way was lost


def test_the_rate_limit_spaces_requests_of_all_workers(server, endpoint):
    asked = endpoint(per_minute=600, workers=4)
    asked.chat_all([say(f"hello {i}") for i in range(6)])
    assert server.times[-1] - server.times[0] >= 0.45  # 5 * 0.1, less what the first one needed to arrive
    started = time.monotonic()
    asked.chat_all([say(f"hello {i}") for i in range(6)])  # kept replies wait for nothing
    assert time.monotonic() - started < 0.2


def test_workers_ask_side_by_side(server, endpoint):
    server.on_call = lambda total: time.sleep(0.2)
    started = time.monotonic()
    endpoint(workers=4).chat_all([say(f"hello {i}") for i in range(8)])
    assert 0.4 <= time.monotonic() - started < 1.6


def test_an_estimate_before_a_run(server, endpoint):
    prompts = [say("x" * 400), say("y" * 40), say("y" * 40)]
    asked = endpoint(price=(2.0, 10.0), per_minute=4)
    guess = asked.estimate(prompts, max_tokens=50)
    assert (guess.prompts, guess.kept, guess.tokens_in, guess.tokens_out) == (3, 1, 104 + 14, 100)
    assert guess.cost == pytest.approx((118 * 2 + 100 * 10) / 1e6) and guess.minutes == 0.5
    assert "3 prompts, 1 of them" in repr(guess) and "$0.0012" in repr(guess) and "0.5 min" in repr(guess)
    assert server.calls.total() == 0
    endpoint().chat(prompts[0], max_tokens=50)
    assert asked.estimate(prompts, max_tokens=50).tokens_in == 14
    unknown = endpoint().estimate(prompts)
    assert unknown.cost is None and "the price is unknown" in repr(unknown)


def test_the_key_is_nowhere(server, endpoint, tmp_path, caplog, capsys, monkeypatch):
    caplog.set_level(logging.DEBUG)
    server.refusal = '{"error": {"message": "wrong key: $AUTH"}}'
    asked = endpoint(attempts=2, timeout=0.6)
    shown = [repr(asked), repr(vars(asked)), repr(asked.estimate([say("a")]))]
    for prompt in ("a", "401 9", "400 9", "500 9", "slow 9", "reset 9"):
        (outcome,) = asked.chat_all([say(prompt)], progress=True)
        shown.append(f"{outcome!r} {outcome}")
    assert "wrong key: Bearer [key]" in shown[-5] and "wrong key: Bearer [key]" in shown[-3]
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")  # a key that was read from a file
    assert asked.chat(say("b")).text == "you said: b"
    assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"
    for bad in (KEY + " x", KEY + "\nx", KEY + "é"):
        monkeypatch.setenv("OPENAI_API_KEY", bad)
        with pytest.raises(EndpointError, match="holds a space or a sign outside ASCII") as caught:
            asked.chat(say("c"))
    shown.append(str(caught.getrepr(style="native")))
    printed = capsys.readouterr()
    shown += [caplog.text, printed.out, printed.err]
    shown += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(shown) > 14 and not any("0123456789abcdef" in text for text in shown)


def test_without_a_key_none_is_sent(server, endpoint, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OTHER", KEY)
    endpoint().chat(say("a"))
    endpoint(key_env=None).chat(say("b"))
    endpoint(key_env="OTHER").chat(say("c"))
    assert [h.get("Authorization") for h in server.headers] == [None, None, f"Bearer {KEY}"]


def test_a_proxy_is_not_asked_for_this_machine(server, endpoint, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert endpoint(attempts=1).chat(say("a")).text == "you said: a"


def test_replies_go_to_the_store_by_default(server, endpoint, store_folder):
    endpoint(cache=None).chat(say("a"))
    assert len(list((store_folder / "replies").rglob("*.json"))) == 1


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


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"attempts": 0}, {"timeout": 0}, {"per_minute": 0}])
def test_limits_that_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Endpoint("https://h/v1", "m", **wrong)
