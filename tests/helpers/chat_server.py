"""A real HTTP server on this machine that answers /chat/completions as a function of the request says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@contextmanager
def chat_server(answer: Callable[[dict[str, Any]], str | int | dict]) -> Iterator[tuple[str, list[dict]]]:
    """(base_url, requests so far). `answer` gives the text of a reply, a whole choice, or an error status."""
    requests: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(request)
            made = answer(request)
            if isinstance(made, str):
                made = {"message": {"content": made}, "finish_reason": "stop"}
            data = json.dumps({} if isinstance(made, int) else {"choices": [made]}).encode()
            self.send_response(made if isinstance(made, int) else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    with serving(Handler) as address:
        yield f"{address}/v1", requests


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Address of a server of this machine that answers as `handler` does, while the block lasts."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    httpd.daemon_threads = True
    Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()
