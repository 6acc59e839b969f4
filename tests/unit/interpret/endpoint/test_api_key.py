"""The key goes to the server, over https or on this machine, and to no other place."""

from __future__ import annotations

import base64
import html
import json
import logging
import ssl
import time
from urllib.parse import quote

import pytest
from helpers.chat_server import Response, alternatives, completion

from caft_utils.interpret.endpoint import Endpoint, EndpointError
from caft_utils.interpret.endpoint.api_key import contains, is_loopback, read_api_key, redact

AWKWARD = "sk-/+=&<\"'\\x41~0123456789"


def test_the_key_is_nowhere(server, endpoint, say, key, tmp_path, caplog, capsys, monkeypatch):
    caplog.set_level(logging.DEBUG)
    server.refusal = '{"error": {"message": "wrong key: $AUTH"}}'
    client = endpoint(attempts=2, timeout=2)
    shown = [
        repr(client),
        repr(vars(client)),
        repr(vars(client._transport)),
        repr(client.estimate([say("a")])),
    ]
    for prompt in ("a", "401 9", "400 9", "500 9", "silent 1", "reset 9"):
        (outcome,) = client.chat_all([say(prompt)], progress=True)
        shown.append(f"{outcome!r} {outcome}")
    assert sum("wrong key: Bearer [key]" in text for text in shown) == 3
    monkeypatch.setenv("OPENAI_API_KEY", key + "\n")  # a key that was read from a file
    assert client.chat(say("b")).text == "you said: b"
    assert server.requests[-1].headers["Authorization"] == f"Bearer {key}"
    for bad in (key + " x", key + "\nx", key + "é"):
        monkeypatch.setenv("OPENAI_API_KEY", bad)
        with pytest.raises(EndpointError, match="OPENAI_API_KEY") as caught:
            client.chat(say("c"))
        assert caught.value.for_all
        shown.append(str(caught.getrepr(style="native")))
    printed = capsys.readouterr()
    shown += [caplog.text, printed.out, printed.err]
    assert len(list(tmp_path.rglob("*.json"))) == 3
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any("0123456789abcdef" in text for text in shown + files)


def test_a_server_that_echoes_the_key_in_a_reply(server, endpoint, say, key, tmp_path):
    escaped = "".join(f"\\u{ord(character):04x}" for character in key)
    server.refusal = json.dumps({"choices": [{"message": {"content": "KEY $AUTH"}}]}).replace("KEY", escaped)
    assert endpoint().chat(say("200 1")).text == "[key] Bearer [key]"
    assert not any("0123456789" in path.read_text() for path in tmp_path.rglob("*.json"))


@pytest.mark.parametrize("key", ["sk-test-0123456789abcdef", AWKWARD])
@pytest.mark.parametrize(
    "encode",
    [
        str,
        str.lower,
        lambda key: json.dumps(key)[1:-1],
        lambda key: json.dumps(json.dumps(key))[3:-3],
        lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
        lambda key: "".join(f"\\u{ord(c):04X}" for c in key),
        lambda key: "".join(f"\\x{ord(c):02x}" for c in key),
        lambda key: key[:5] + "".join(f"\\\\u{ord(c):04x}" for c in key[5:]),
        lambda key: quote(key, safe=""),
        lambda key: quote(quote(key, safe=""), safe=""),
        lambda key: html.escape(key),
        lambda key: "".join(f"&#{ord(c)};" for c in key),
        lambda key: "".join(f"&#x{ord(c):x};" for c in key),
        lambda key: key.encode().hex().upper(),
        str.swapcase,
    ],
)
def test_the_key_is_cut_out_of_a_text_however_it_is_escaped(key, encode):
    assert redact(key, f"<{encode(key)}> and {encode(key)}.") == "<[key]> and [key]."


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_the_key_is_cut_out_of_base64(before, encode):
    encoded = encode((before + AWKWARD + "tail").encode()).decode()
    left = redact(AWKWARD, encoded)
    assert "[key]" in left and len(left) <= len(encoded) - len(AWKWARD) + len("[key]")


def test_other_texts_are_left_alone():
    assert redact("", "a text") == redact("a", "a text") == redact("sk-0123456789", "a text") == "a text"
    long = "\\" * 200_000 + "%25" * 100_000
    assert redact("sk-0123456789", long) == long


def test_without_a_key_none_is_sent(server, endpoint, say, key, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OTHER", key)
    endpoint().chat(say("a"))
    endpoint(key_env=None).chat(say("b"))
    endpoint(key_env="OTHER").chat(say("c"))
    assert [r.headers.get("Authorization") for r in server.requests] == [None, None, f"Bearer {key}"]


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1/v1", True),
        ("http://127.5.6.7:1/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://192.168.0.5:8000/v1", False),
        ("http://0.0.0.0:8000/v1", False),
        ("http://127.0.0.1.example.com/v1", False),
        ("http://localhost.example.com/v1", False),
        ("http://example.com/localhost", False),
    ],
)
def test_a_key_goes_over_plain_http_to_this_machine_only(url, loopback, key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert is_loopback(url) == loopback
    for scheme in ("https:", "HTTPS:"):
        assert read_api_key("OPENAI_API_KEY", url.replace("http:", scheme)) == key
    assert read_api_key(None, url) == ""
    if loopback:
        assert read_api_key("OPENAI_API_KEY", url) == key
        return
    with pytest.raises(EndpointError, match="https") as caught:
        Endpoint(url, "m").chat([{"role": "user", "content": "a"}])
    assert caught.value.for_all and key not in str(caught.value)


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_certificates_are_verified(scheme):
    context = Endpoint(f"{scheme}://h/v1", "m")._transport._verify
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname


@pytest.mark.parametrize(
    "encode",
    [
        lambda key: key[::-1],
        lambda key: "\n".join(key),
        lambda key: key[:9] + "\\n    " + key[9:],
        lambda key: key[:9] + "=\n" + key[9:],
        lambda key: key.encode().hex(":"),
        lambda key: key.encode().hex(" ", 2),
        lambda key: base64.encodebytes(key.encode() * 3).decode(),
        lambda key: quote(base64.b64encode(key.encode()).decode(), safe=""),
        lambda key: base64.b64encode(key.encode()).decode().replace("/", "\\/"),
        lambda key: base64.b32encode(b"ab" + key.encode()).decode(),
        lambda key: html.escape(html.escape(key)),
        lambda key: "x" * 10**6 + key,
    ],
)
@pytest.mark.parametrize("key", ["sk-test-0123456789abcdef", AWKWARD])
def test_a_text_from_which_the_key_cannot_be_cut_is_withheld(key, encode):
    left = redact(key, f"so {encode(key)} it is")
    assert key not in left and not contains(key, left) and "key]" in left


@pytest.mark.parametrize(
    "piece",
    ["\\", "%25", "&amp;", "&#0", "s\\n", "s ", "sk-", "sk-012345678 ", "&#" + "0" * 5000, "%" + "25" * 99],
)
def test_long_texts_are_searched_in_little_time(piece):
    text = piece * (500_000 // len(piece))
    started = time.process_time()
    assert redact("sk-0123456789", text) == text and time.process_time() - started < 4


def test_a_server_that_echoes_the_key_wherever_it_can(
    server, endpoint, say, key, tmp_path, caplog, monkeypatch
):
    caplog.set_level(logging.DEBUG)
    tokens = alternatives(*({piece: -0.1} for piece in (key[:4], key[4:9], key[9:])))
    body = completion(
        {"message": {"content": "yes"}, "finish_reason": key, "logprobs": tokens}, id=key, model=key[::-1]
    )
    monkeypatch.setattr(type(server), "__call__", lambda *_: Response(body, headers={"X-Echo": key}))
    reply = endpoint().chat(say("a"))
    assert (reply.text, reply.finish, reply.logprobs) == ("yes", "[key]", None)
    moved = Response("", status=302, headers={"Location": f"https://h/{key}", "Retry-After": key})
    monkeypatch.setattr(type(server), "__call__", lambda *_: moved)
    with pytest.raises(EndpointError) as caught:
        endpoint().chat(say("b"))
    assert "X-Echo" in caplog.text and not contains(key, caplog.text)
    assert not any(contains(key, path.read_text()) for path in tmp_path.rglob("*") if path.is_file())
    values, trace = [], caught.value.__traceback__
    while trace:
        values.append(
            repr(trace.tb_frame.f_locals) if "caft_utils" in trace.tb_frame.f_code.co_filename else ""
        )
        trace = trace.tb_next
    assert caught.value.__context__ is None and not any(key in value for value in values)


def test_the_key_is_not_stored_with_a_prompt_or_an_address(endpoint, say, key, server, tmp_path):
    with pytest.raises(EndpointError, match="OPENAI_API_KEY") as caught:
        endpoint().chat(say(f"what is {key}?"))
    assert not caught.value.for_all
    with pytest.raises(EndpointError, match="OPENAI_API_KEY"):
        endpoint(extra={"api_key": key}).chat(say("a"))
    with pytest.raises(ValueError, match="OPENAI_API_KEY") as refused:
        Endpoint(f"https://h/v1/{key}", "m")
    assert key not in str(refused.value) and not server.requests
    assert not any(key in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "url", ["http://localhost\\@h/v1", "http://h\\@localhost/v1", "http://localhost:1@h/v1"]
)
def test_the_host_is_the_one_that_the_client_asks(url, key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises((EndpointError, ValueError)):
        Endpoint(url, "m", attempts=1, timeout=1).chat([{"role": "user", "content": "a"}])
