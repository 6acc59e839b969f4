"""Serve a loaded model to this machine in the form of the OpenAI API, to try a judge without vLLM or a bill.

    with serving(model, tokenizer, "smollm2") as url:
        judge = AnswerJudge(Endpoint(url, "smollm2", key_env=None))

It answers one request at a time with transformers, on one CPU core or one GPU. Log-probabilities are those of
the model before sampling. Nobody but this machine can reach the server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import torch

from caft_utils.arguments import number, whole
from caft_utils.chats import prompt_ids
from caft_utils.evaluation.generation import end_token_ids, generate_ids, generation_config
from caft_utils.models.positions import check_positions
from caft_utils.residual import evaluating, seeded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST = 1 << 24  # bytes of a request


@contextmanager
def serving(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> Iterator[str]:
    """Serve a model under `name` within this context, and yield the `base_url` for an `Endpoint`."""
    turn = Lock()  # a forward pass uses all cores, and hooks belong to all threads

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                request = json.loads(self.rfile.read(min(int(self.headers["Content-Length"]), LONGEST)))
                if request["model"] != name:
                    raise LookupError(f"The model `{request['model']}` does not exist; this is `{name}`.")
                with turn:
                    status, body = 200, completion(model, tokenizer, request)
            except LookupError as error:
                status, body = 404, {"error": {"message": str(error), "code": 404}}
            except (ValueError, TypeError) as error:
                status, body = 400, {"error": {"message": str(error), "code": 400}}
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass  # a notebook shows no line for each request

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


@torch.no_grad()
def completion(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, request: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the response to a request of /chat/completions.

    It reads messages, max_tokens, temperature, logprobs, top_logprobs and seed, and ignores other fields.

    Raises:
        ValueError: a field is out of range, or the conversation does not fit the chat template or the model.
    """
    temperature = number("temperature", request.get("temperature", 1.0), 0)
    limit = whole("max_tokens", request.get("max_tokens") or 256, 1)
    top = whole("top_logprobs", request.get("top_logprobs") or 0, 0, 20)
    settings = generation_config(model, tokenizer, temperature=temperature, max_new_tokens=limit)
    settings.output_logits = settings.return_dict_in_generate = True
    ids = torch.tensor([prompt_ids(tokenizer, request["messages"])], device=model.device)
    check_positions(
        model, [ids.shape[1] + limit], f"the prompt, with {limit} new tokens", "ask for fewer max_tokens"
    )
    with seeded(whole("seed", request.get("seed") or 0), model.device), evaluating(model):
        out = generate_ids(
            model, settings, ["the prompt"], input_ids=ids, attention_mask=torch.ones_like(ids)
        )
    said = out.sequences[0, ids.shape[1] :].tolist()
    ended = said[-1] in end_token_ids(model, tokenizer)
    steps = []
    for token, logits in zip(said[:-1] if ended else said, out.logits):
        logprobs = logits[0].float().log_softmax(-1)
        likely = logprobs.topk(top).indices.tolist()
        entries = [{"token": tokenizer.decode([i]), "logprob": logprobs[i].item()} for i in (token, *likely)]
        steps.append({**entries[0], "top_logprobs": entries[1:]})
    text = tokenizer.decode(said, skip_special_tokens=True).strip()
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop" if ended else "length",
        "logprobs": {"content": steps} if request.get("logprobs") else None,
    }
    usage = {"prompt_tokens": ids.shape[1], "completion_tokens": len(said)}
    return {"object": "chat.completion", "model": request["model"], "choices": [choice], "usage": usage}
