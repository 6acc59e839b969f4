"""What is tried again, how long the waits are, and what ends a prompt at once.

Waits are recorded instead of slept, so no test depends on the speed of the machine.
"""

from __future__ import annotations

import gzip
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Event

import pytest
from helpers.chat_server import Response, completion

from caft_utils.interpret.endpoint import ClientConfig, EndpointError
from caft_utils.interpret.endpoint import transport as transport_module
from caft_utils.interpret.endpoint.transport import RetryingTransport


class RecordedWaits(Event):
    """An event that nobody sets, whose waits end at once."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def wait(self, timeout=None):
        if timeout:
            self.waits.append(timeout)
        return False


@pytest.fixture
def stop():
    return RecordedWaits()


@pytest.fixture
def transport(server):
    """A factory of transports to the server."""
    return lambda **config: RetryingTransport(f"{server.url}/chat/completions", None, ClientConfig(**config))


def request(text):
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize("what", ["429", "408", "500", "503", "reset", "truncated", "malformed", "formless"])
def test_transient_failures_are_tried_again(server, transport, stop, what):
    assert transport().send(request(f"{what} 2"), stop).text == f"you said: {what} 2"
    assert server.calls == {f"{what} 2": 3}


@pytest.mark.parametrize("what", ["silent", "dripping", "dripping-headers"])
def test_a_reply_has_to_arrive_in_time(server, transport, stop, what):
    assert transport(timeout=1, attempts=9).send(request(f"{what} 1"), stop).text.startswith("you said")
    assert server.calls[f"{what} 1"] >= 2


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("500 9", "status 500"),
        ("malformed 9", "hal"),
        ("silent 9", "within 1 s"),
        ("dripping 9", "within 1 s"),
        ("dripping-headers 9", "within 1 s"),
    ],
)
def test_attempts_have_an_end(server, transport, stop, what, reason):
    timeout = 1 if what[0] in "sd" else 30
    with pytest.raises(EndpointError, match=f"in 2 attempts.*{reason}") as caught:
        transport(attempts=2, timeout=timeout).send(request(what), stop)
    assert server.calls[what] == 2 and not caught.value.for_all


def test_waits_double_up_to_the_longest(transport, stop):
    transport(backoff=(1.0, 7.0)).send(request("500 5"), stop)
    shortest = [1, 2, 4, 7, 7]
    assert len(stop.waits) == 5
    assert all(low <= wait <= min(low + 1, 7) for low, wait in zip(shortest, stop.waits))


def in_100_seconds():
    return format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True).replace(" ", "_")


@pytest.mark.parametrize("header", ["100", in_100_seconds])
def test_retry_after_is_obeyed_by_all_workers(transport, stop, header):
    shared, other_worker = transport(backoff=(0.1, 1.0)), RecordedWaits()
    header = header if isinstance(header, str) else header()
    shared.send(request(f"429 1 {header}"), stop)
    shared.send(request("hello"), other_worker)
    for waits in (stop.waits, other_worker.waits):
        assert 50 < max(waits) <= 100


@pytest.mark.parametrize(
    "header",
    ["-5", "nan", "soon", "0", "Thu,_01_Jan_2020_00:00:00_GMT", "Thu,_01_Jan_2020_00:00:00_+" + 20 * "9"],
)
def test_a_retry_after_that_makes_no_sense_is_ignored(transport, stop, header):
    assert transport(backoff=(0.1, 1.0)).send(request(f"429 1 {header}"), stop).text.startswith("you said")
    assert max(stop.waits) <= 1


@pytest.mark.parametrize("header", ["3600", "inf"])
def test_a_longer_retry_after_than_allowed_is_an_error(server, transport, stop, header):
    with pytest.raises(EndpointError, match="max_retry_after=10") as caught:
        transport(max_retry_after=10).send(request(f"429 1 {header}"), stop)
    assert caught.value.status == 429 and server.calls.total() == 1


def test_the_rate_limit_spaces_requests_and_attempts(transport, stop):
    shared, other_worker = transport(per_minute=1, backoff=(0.1, 1.0)), RecordedWaits()
    shared.send(request("500 1"), stop)
    shared.send(request("hello"), other_worker)
    assert 30 < max(stop.waits) <= 60 < max(other_worker.waits) <= 120


@pytest.mark.parametrize("what", ["400", "422"])
def test_a_refused_prompt_is_not_sent_again(server, transport, stop, what):
    with pytest.raises(EndpointError, match=what) as caught:
        transport().send(request(f"{what} 9"), stop)
    assert server.calls.total() == 1 and caught.value.status == int(what) and not caught.value.for_all


@pytest.mark.parametrize("what", ["301", "307", "401", "402", "403", "404", "405"])
def test_what_fails_for_all_prompts_says_so(server, transport, stop, what):
    with pytest.raises(EndpointError, match=what) as caught:
        transport().send(request(f"{what} 9"), stop)
    assert server.calls.total() == 1 and caught.value.for_all


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, '{"error": {"code": "insufficient_quota"}}'),
        (400, '{"error": {"message": "Your credit balance is too low to access the API"}}'),
        (400, '{"error": {"message": "API key not valid. Please pass a valid API key."}}'),
        (400, '{"error": {"message": "gpt-9 is not a valid model ID"}}'),
        (400, '{"error": {"code": "model_not_found"}}'),
        (200, '{"error": {"code": 401, "message": "No auth credentials found"}}'),
        (200, '{"error": {"code": "402", "message": "no"}}'),
        (200, '{"error": {"message": "insufficient balance"}}'),
    ],
)
def test_a_reason_that_concerns_all_prompts_ends_the_batch(server, transport, stop, status, body):
    server.refusal = body
    with pytest.raises(EndpointError) as caught:
        transport().send(request(f"{status} 9"), stop)
    assert server.calls.total() == 1 and caught.value.for_all


@pytest.mark.parametrize("reason", ["Your input was flagged", "requires moderation", "content_policy"])
def test_a_prompt_that_is_moderated_concerns_no_other(server, transport, stop, reason):
    server.refusal = reason
    with pytest.raises(EndpointError) as caught:
        transport().send(request("403 9"), stop)
    assert server.calls.total() == 1 and not caught.value.for_all


def test_an_error_of_status_200_is_tried_again(server, transport, stop):
    server.refusal = '{"error": {"code": 502, "message": "upstream"}, "choices": []}'
    assert transport().send(request("200 2"), stop).text.startswith("you said")


def test_an_interrupted_transport_sends_nothing(server, transport):
    stop = Event()
    stop.set()
    with pytest.raises(EndpointError, match="interrupted"):
        transport().send(request("hello"), stop)
    assert not server.requests


def test_the_size_of_a_reply_is_limited(server, transport, stop, monkeypatch):
    monkeypatch.setattr(transport_module, "MAX_REPLY_BYTES", 10_000)
    server.refusal = completion("x" * 11_000)
    with pytest.raises(EndpointError, match="more than 10000 bytes"):
        transport().send(request("200 9"), stop)
    assert server.calls.total() == 1
    server.refusal = completion("x" * 9_000)
    assert len(transport().send(request("200 9 "), stop).text) == 9_000


def serve(server, monkeypatch, body, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    monkeypatch.setattr(type(server), "__call__", lambda *_: Response(body, headers=headers))


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_bodies_are_read_up_to_the_limit(server, transport, stop, monkeypatch, coding, pack):
    monkeypatch.setattr(transport_module, "MAX_REPLY_BYTES", 10_000)
    serve(server, monkeypatch, pack(b" " * 5_000 + completion("x").encode()), Content_Encoding=coding)
    assert transport().send(request("hello"), stop).text == "x"
    assert server.requests[0].headers["Accept-Encoding"] == "identity"
    serve(server, monkeypatch, pack(b" " * 30_000_000 + completion("x").encode()), Content_Encoding=coding)
    with pytest.raises(EndpointError, match="more than 10000 bytes"):
        transport().send(request("hello"), stop)
    serve(server, monkeypatch, b"not compressed", Content_Encoding=coding)
    with pytest.raises(EndpointError, match="in 2 attempts"):
        transport(attempts=2).send(request("hello"), stop)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress", "x" * 1000])
def test_other_codings_are_refused_before_they_are_unpacked(server, transport, stop, monkeypatch, coding):
    serve(server, monkeypatch, b"(" * 100, Content_Encoding=coding)
    with pytest.raises(EndpointError, match="compresses") as caught:
        transport().send(request("hello"), stop)
    assert caught.value.for_all and len(server.requests) == 1 and len(str(caught.value)) < 300


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-le"])
def test_bodies_in_other_encodings_are_read(server, transport, stop, monkeypatch, encoding):
    serve(server, monkeypatch, completion("für").encode(encoding))
    assert transport(attempts=1).send(request("hello"), stop).text == "für"


def test_a_prompt_with_a_lone_surrogate_is_sent(server, transport, stop):
    assert transport().send(request("a \ud800"), stop).text == "you said: a \ufffd"
    assert server.requests[0].prompt == "a \ud800"


def test_no_proxy_is_used_for_this_machine(transport, stop, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert transport(attempts=1).send(request("a"), stop).text == "you said: a"
