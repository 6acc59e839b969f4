"""A real HTTP server on this machine whose replies to /chat/completions a test computes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@contextmanager
def chat_server(answer: Callable[[dict[str, Any]], str | int | dict]) -> Iterator[tuple[str, list[dict]]]:
    """Yield the base URL and the list of requests so far.

    `answer` maps a request to the text of a reply, a whole choice, or an HTTP error status.
    """
    requests: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(request)
            reply = answer(request)
            if isinstance(reply, str):
                reply = {"message": {"content": reply}, "finish_reason": "stop"}
            data = json.dumps({} if isinstance(reply, int) else {"choices": [reply]}).encode()
            self.send_response(reply if isinstance(reply, int) else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    with serving(Handler) as address:
        yield f"{address}/v1", requests


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Yield the address of a local server that replies by `handler`, and stop it at the end of the block."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    httpd.daemon_threads = True
    Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()
