"""A real HTTP server on this machine whose answers to /chat/completions are a function of the request."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Request(dict):
    """The JSON of a request, with its HTTP headers."""

    headers: Mapping[str, str]

    @property
    def prompt(self) -> str:
        return self["messages"][-1]["content"]


@dataclass
class Response:
    """A response in full.

    Attributes:
        byte_delay: Seconds before each byte of the body.
        header_delay: Seconds before each byte of one more header.
        missing_bytes: Bytes that Content-Length announces and that never come.
    """

    body: str | bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    byte_delay: float = 0.0
    header_delay: float = 0.0
    missing_bytes: int = 0


Answer = str | int | dict | Response | None


def completion(choice: str | dict | None, **fields: Any) -> str:
    """Return the body of a chat completion with one choice, or the text of one."""
    if not isinstance(choice, dict):
        choice = {"message": {"role": "assistant", "content": choice}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 3}
    return json.dumps({"choices": [choice], "usage": usage, **fields})


def alternatives(*steps: Mapping[str, float]) -> dict:
    """Return the `logprobs` field of a choice, from {token: log-probability} for each token."""
    content = []
    for step in steps:
        entries = [{"token": token, "logprob": logprob} for token, logprob in step.items()]
        content.append({**entries[0], "top_logprobs": entries})
    return {"content": content}


@contextmanager
def chat_server(answer: Callable[[Request], Answer]) -> Iterator[tuple[str, list[Request]]]:
    """Serve `answer` and yield (base_url, requests so far).

    `answer` returns the text of a reply, a whole choice, an error status, a `Response`, or None to drop the
    connection. It runs in the server's threads and may wait.
    """
    requests: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            request = Request(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            request.headers = dict(self.headers)
            requests.append(request)
            made = answer(request)
            if isinstance(made, int):
                made = Response("{}", status=made)
            elif isinstance(made, str | dict):
                made = Response(completion(made))
            try:
                self.respond(made)
            except OSError:  # the client gave up
                self.close_connection = True

        def respond(self, response: Response | None):
            if response is None:
                self.close_connection = True
                return self.connection.shutdown(socket.SHUT_RDWR)
            body = response.body.encode() if isinstance(response.body, str) else response.body
            self.close_connection = bool(response.missing_bytes)
            self.send_response(response.status)
            self.send_header("Content-Length", str(len(body) + response.missing_bytes))
            for name, value in response.headers.items():
                self.send_header(name, value)
            if response.header_delay:
                self.flush_headers()
                self.write_slowly(b"X-Slow: " + b"x" * 1000 + b"\r\n", response.header_delay)
            self.end_headers()
            self.write_slowly(body, response.byte_delay)

        def write_slowly(self, data: bytes, delay: float):
            for part in [data[i : i + 1] for i in range(len(data))] if delay else [data]:
                time.sleep(delay)
                self.wfile.write(part)

        def log_message(self, *args):
            pass

    with serving(Handler) as address:
        yield f"{address}/v1", requests


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve with `handler` on this machine while the block lasts, and yield the address."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    httpd.daemon_threads = True
    Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()
