"""A chat server on this machine that answers well, badly, late or not at all, and endpoints on it."""

from __future__ import annotations

from collections import Counter
from threading import Event

import pytest
from helpers.chat_server import Response, alternatives, chat_server

from caft_utils.interpret.endpoint import Endpoint

KEY = "sk-test-0123456789abcdef-secret"


class Script:
    """A script of answers in the prompt: "429 2" is refused twice with 429 before it is answered.

    A further word becomes the Retry-After, with "_" for a space.
    """

    def __init__(self):
        self.calls, self.requests, self.url = Counter(), [], ""
        self.on_call, self.refusal, self.closing = None, '{"error": {"message": "no"}}', Event()

    def __call__(self, request):
        prompt = request.prompt
        self.calls[prompt] += 1
        call = self.calls[prompt]
        if self.on_call:
            self.on_call(self.calls.total())
        what, *rest = prompt.split()
        if what == "textless":
            return {"message": {"content": None}, "finish_reason": "content_filter"}
        if rest and rest[0].isdigit() and call <= int(rest[0]):
            if what == "silent":
                self.closing.wait(60)
                return None
            if what == "dripping":
                return Response("x" * 10_000, byte_delay=0.02)
            if what == "dripping-headers":
                return Response("{}", header_delay=0.02)
            if what == "truncated":
                return Response('{"choices": []}', missing_bytes=10_000)
            if what == "malformed":
                return Response('{"choices": [{"message": {"content": "hal')
            if what == "formless":
                return Response('{"error": {"message": "try later"}}')
            if what == "reset":
                return None
            if what.isdigit():
                headers = {"Retry-After": rest[1].replace("_", " ")} if len(rest) > 1 else {}
                body = self.refusal.replace("$AUTH", request.headers.get("Authorization", "none"))
                return Response(body, status=int(what), headers=headers)
        choice = {"message": {"content": f"you said: {prompt}"}, "finish_reason": "stop"}
        if request.get("logprobs"):
            choice["logprobs"] = alternatives({"7": -0.1, "80": -2.5})
        return choice


@pytest.fixture
def server():
    script = Script()
    with chat_server(script) as (script.url, script.requests):
        yield script
        script.closing.set()


@pytest.fixture
def endpoint(server, tmp_path, monkeypatch):
    """A factory of endpoints on the server that share one cache and wait for milliseconds only."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def make(model="m", **changes):
        settings = dict(cache=tmp_path / "replies", backoff=(0.01, 0.05), timeout=30, attempts=4)
        return Endpoint(server.url, model, **(settings | changes))

    return make


@pytest.fixture
def key():
    return KEY


@pytest.fixture
def say():
    return lambda text: [{"role": "user", "content": text}]
