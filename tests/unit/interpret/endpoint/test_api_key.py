"""The key goes to the server, over https or on this machine, and to no other place."""

from __future__ import annotations

import base64
import html
import json
import logging
import ssl
from urllib.parse import quote

import pytest

from caft_utils.interpret.endpoint import Endpoint, EndpointError
from caft_utils.interpret.endpoint.api_key import is_loopback, read_api_key, redact

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
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3 and not any("0123456789abcdef" in text for text in shown + files)


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
