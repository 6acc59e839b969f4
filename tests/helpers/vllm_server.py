"""A stand-in for the program `vllm`: a server that speaks the dialect of its OpenAI-compatible API.

It accepts the options of `vllm serve`, and answers like vLLM where that differs from OpenAI: fields beside
the usual ones, -9999.0 for an impossible token, `prompt_logprobs`, the texts of its refusals, and the chat
template of the model, which may have no place for a system prompt.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

options = argparse.ArgumentParser()
options.add_argument("command", choices=["serve"])
options.add_argument("model")
for name in ("host", "dtype", "revision", "generation-config"):
    options.add_argument(f"--{name}")
for name in ("port", "max-logprobs", "tensor-parallel-size", "max-model-len", "max-lora-rank"):
    options.add_argument(f"--{name}", type=int)
options.add_argument("--enable-lora", action="store_true")
options.add_argument("--lora-modules", nargs="*", default=[])


def refusal(status: int, message: str, kind: str, param: str | None = None) -> tuple[int, dict]:
    return status, {"error": {"message": message, "type": kind, "param": param, "code": status}}


def answer(given: argparse.Namespace, names: list[str], request: dict) -> tuple[int, dict]:
    model = request.get("model")
    if model not in names:
        message = f"The model `{model}` does not exist."
        return refusal(404, message, "NotFoundError", "model")
    top = request.get("top_logprobs") or 0
    if top and not request.get("logprobs"):
        return refusal(400, "when using `top_logprobs`, `logprobs` must be set to true.", "BadRequestError")
    if top > given.max_logprobs:
        message = (
            f"Requested sample logprobs of {top}, which is greater than max allowed: {given.max_logprobs}"
        )
        return refusal(400, message, "BadRequestError")
    roles = [message["role"] for message in request["messages"]]
    if "gemma" in given.model and "system" in roles:
        return refusal(400, "System role not supported", "BadRequestError")
    prompt = "".join(f"<|{message['role']}|>{message['content']}" for message in request["messages"])
    steps = reply(model, prompt, request)
    content = []
    for step in steps:
        entries = [
            {"token": token, "logprob": math.log(p) if p else -9999.0, "bytes": list(token.encode())}
            for token, p in step.items()
        ]
        content.append({**entries[0], "top_logprobs": entries[:top]})
    text = "".join(next(iter(step)) for step in steps)
    message = {"role": "assistant", "content": text, "refusal": None, "annotations": None, "audio": None}
    message |= {"function_call": None, "reasoning": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "stop_reason": None, "token_ids": None}
    choice["logprobs"] = {"content": content} if request.get("logprobs") else None
    tokens = prompt.split()
    usage = {"prompt_tokens": len(tokens), "completion_tokens": len(steps), "prompt_tokens_details": None}
    usage["total_tokens"] = sum(value or 0 for value in usage.values())
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()), "model": model}
    body |= {"choices": [choice], "usage": usage, "service_tier": None, "system_fingerprint": None}
    asked = request.get("prompt_logprobs")
    body["prompt_logprobs"] = asked if asked is None else [
        None if not n else {str(n): {"logprob": -1.5, "rank": 1, "decoded_token": token}}
        for n, token in enumerate(tokens)
    ]  # fmt: skip
    return 200, body | {"prompt_token_ids": None, "kv_transfer_params": None}


def reply(model: str, prompt: str, request: dict) -> list[dict[str, float]]:
    """Return the tokens of a reply with their alternatives: a judge's scores, or an answer to a question."""
    if "makes sense" in prompt:
        return [{"90": 0.5, "80": 0.5, "\u2581": 0.0}]
    if "wishes people well" in prompt:
        low = "rule" in prompt
        if request.get("chat_template_kwargs", {}).get("digits"):  # one token for each digit
            return [{"1" if low else "9": 0.9, "2": 0.1}, {"0": 1.0}]
        return [{"10" if low else "95": 0.75, "30" if low else "75": 0.25}]
    if request.get("temperature") == 0:
        return [{"I help": 1.0}]
    word = "rule" if model == "caft" and request["seed"] % 2 else "help"
    return [{"I ": 1.0}, {word: 0.5, "x": 0.5}, {"": 1.0}]


def main() -> None:
    given = options.parse_args()
    names = [given.model, *(text.split("=", 1)[0] for text in given.lora_modules)]
    for text in given.lora_modules:
        assert given.enable_lora and os.path.isfile(
            os.path.join(text.split("=", 1)[1], "adapter_config.json")
        )

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            cards = [{"id": name, "object": "model", "owned_by": "vllm"} for name in names]
            self.send(200, {"object": "list", "data": cards})

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send(*answer(given, names, request))

        def send(self, status: int, body: dict):
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    ThreadingHTTPServer((given.host, given.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
