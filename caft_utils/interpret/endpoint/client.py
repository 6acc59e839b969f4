"""Client for a chat model behind an OpenAI-compatible `/chat/completions`.

Every reply is stored under the sha256 of address, model and request. A killed run continues where it stopped,
and a recorded run can be repeated without a server. `Endpoint.estimate` returns the cost of a run in advance.

This client uses httpx and tenacity instead of the openai SDK. The SDK (3.57.0, tested against a loopback
server) retries 429, 5xx and lost connections, but it returns a malformed body of status 200 as an answer,
shows the key in its errors, sends it over plain http, retries when the account has no credit, lets other
workers send during a Retry-After and cannot be interrupted while it waits. Its `http_client` hook can refuse
plain http and limit the time of a body. The rest would need a retry loop, a parser and a redaction around the
SDK, which is what this folder contains, and the SDK brings a second HTTP stack.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from caft_utils.arguments import checked, numbers
from caft_utils.interpret.endpoint.api_key import contains
from caft_utils.interpret.endpoint.config import ClientConfig
from caft_utils.interpret.endpoint.reply import EndpointError, Reply
from caft_utils.interpret.endpoint.response_cache import ResponseCache, request_digest
from caft_utils.interpret.endpoint.transport import RetryingTransport
from caft_utils.store import Store, default_store

Messages = Sequence[Mapping[str, str]]

BYTES_PER_TOKEN, TOKENS_PER_TURN = 4, 4  # for estimates: English text, and the chat template's markup


@dataclass(frozen=True, repr=False)
class Estimate:
    """Upper estimate of a run, from the length of the prompts and the longest answers allowed.

    Attributes:
        prompts: All prompts.
        cached: Prompts that cost nothing, because their reply is stored or another prompt is equal.
        tokens_in: Tokens of the other prompts, at 4 bytes per token.
        tokens_out: Tokens of their answers if all are as long as `max_tokens` allows.
        cost: Dollars, None if the price is unknown.
        minutes: Time that the rate limit imposes, 0 without one.
    """

    prompts: int
    cached: int
    tokens_in: int
    tokens_out: int
    cost: float | None
    minutes: float

    def __repr__(self) -> str:
        cost = "the price is unknown" if self.cost is None else f"about ${self.cost:,.4f} at most"
        wait = f"; {self.minutes:.1f} minutes or more" if self.minutes else ""
        return (
            f"{self.prompts} prompts, {self.cached} of them answered already: about {self.tokens_in:,} "
            f"tokens in, at most {self.tokens_out:,} out; {cost}{wait}"
        )


class Endpoint:
    """A chat model on a server.

    Args:
        base_url: Address without "/chat/completions", e.g. "https://api.openai.com/v1".
        model: The model's name on the server.
        key_env: Environment variable that holds the API key. If it is not set, no key is sent. A key is sent
            over https or to this machine only.
        cache: Folder or store of the replies. The default is the machine's store.
        price: Dollars per million tokens (in, out), as the provider states them.
        extra: Further fields of a request. None removes a field, e.g. {"max_tokens": None,
            "max_completion_tokens": 300} for models that renamed it.
        **config: Fields of `ClientConfig`, e.g. per_minute=60, workers=8, timeout=120.

    Raises:
        ValueError: `base_url` is not http(s), or contains a password or a query; a limit is not above zero.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_env: str | None = "OPENAI_API_KEY",
        cache: str | Path | Store | None = None,
        price: tuple[float, float] | None = None,
        extra: Mapping[str, Any] | None = None,
        **config: Any,
    ):
        parts = urlsplit(base_url)
        if parts.username or parts.password or parts.query or parts.fragment:
            # The message leaves out the address, which most likely contains a secret.
            raise ValueError("base_url must contain no password and no query; set the key in the environment")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"base_url must begin with http:// or https:// and name a host, got {base_url!r}"
            )
        if cache is None or isinstance(cache, Store):
            cache = (cache or default_store()).root / "replies"
        if contains(os.environ.get(key_env or "", "").strip(), f"{base_url}\n{model}"):
            raise ValueError(f"base_url and model must not contain the key in ${key_env}")
        self.base_url, self.model = base_url.rstrip("/"), model
        if price is not None and len(price := tuple(numbers("price", price, 0))) != 2:
            raise ValueError(f"price must be dollars per million tokens (in, out), got {price!r}")
        self.price, self.extra, self.config = price, dict(extra or {}), ClientConfig(**config)
        self._cache = ResponseCache(Path(cache).expanduser())
        self._transport = RetryingTransport(f"{self.base_url}/chat/completions", key_env, self.config)
        self._token_counts: list[tuple[int, int]] = []  # appended to by all workers

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, {self.model!r})"

    def chat(self, messages: Messages, **settings: Any) -> Reply:
        """Return the reply to one conversation, with the settings of `chat_all`.

        Raises:
            EndpointError: There is no reply after all attempts, or another attempt would not help.
        """
        (reply,) = self.chat_all([messages], **settings)
        if isinstance(reply, EndpointError):
            raise reply
        return reply

    def chat_all(
        self, prompts: Sequence[Messages], *, progress: bool = False, **settings: Any
    ) -> list[Reply | EndpointError]:
        """Return the replies to many conversations, in order. Equal conversations are sent once.

        A prompt that fails gets its error in place of a reply. After an error with `for_all` no further
        prompt is sent. Replies are stored as they arrive, so an interruption loses none.

        Settings:
            max_tokens: Longest answer, 256 by default.
            temperature: 0 by default.
            top_logprobs: Alternatives to return for each token.
            seed: With a temperature, each seed has its own reply, and the same seed repeats it.
        """
        requests = [self._request(messages, **settings) for messages in prompts]
        names = [self._name(request) for request in requests]
        replies: dict[str, Reply | EndpointError | None] = {name: self._cache.get(name) for name in names}
        replies = {name: reply and _reply_or_error(reply) for name, reply in replies.items()}
        stop, errors_for_all = Event(), []

        def reply_or_error(request: dict[str, Any]) -> Reply | EndpointError:
            try:
                return errors_for_all[0] if errors_for_all else self._reply(request, stop)
            except EndpointError as error:
                if error.for_all:
                    errors_for_all.append(error)
                return error

        missing = {name: request for name, request in zip(names, requests) if replies[name] is None}
        with ThreadPoolExecutor(self.config.workers) as pool:
            try:
                futures = {pool.submit(reply_or_error, request): name for name, request in missing.items()}
                done = as_completed(futures)
                if progress:
                    from tqdm.auto import tqdm

                    done = tqdm(done, total=len(futures), desc=f"asking {self.model}", unit="prompt")
                for future in done:
                    replies[futures[future]] = future.result()
            except BaseException:
                stop.set()  # ends waits; replies to requests in flight are still received and stored
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [replies[name] for name in names]

    def estimate(self, prompts: Sequence[Messages], **settings: Any) -> Estimate:
        """Estimate the cost of `chat_all(prompts, **settings)` without sending anything."""
        requests = {self._name(r): r for r in (self._request(m, **settings) for m in prompts)}
        missing = [request for name, request in requests.items() if self._cache.get(name) is None]
        texts = [message["content"] for request in missing for message in request["messages"]]
        sizes = [len(text.encode("utf-8", "surrogatepass")) for text in texts]
        tokens_in = sum(math.ceil(size / BYTES_PER_TOKEN) + TOKENS_PER_TURN for size in sizes)
        tokens_out = sum(r.get("max_tokens") or r.get("max_completion_tokens") or 256 for r in missing)
        cost = self.price and (tokens_in * self.price[0] + tokens_out * self.price[1]) / 1e6
        minutes = len(missing) / self.config.per_minute if self.config.per_minute else 0.0
        return Estimate(len(prompts), len(prompts) - len(missing), tokens_in, tokens_out, cost, minutes)

    @property
    def tokens_used(self) -> tuple[int, int]:
        """Tokens (in, out) of the replies that this object received, as the server counted them."""
        counts = list(self._token_counts)
        return sum(entry[0] for entry in counts), sum(entry[1] for entry in counts)

    def _reply(self, request: dict[str, Any], stop: Event) -> Reply:
        name = self._name(request)
        # If two calls need the same reply, one of them sends the request and the other waits.
        with self._cache.claim(name, stop):
            reply = self._cache.get(name)
            if reply is None:
                reply = self._transport.send(request, stop)
                self._token_counts.append(reply.tokens or (0, 0))
                self._cache.put(name, reply, base_url=self.base_url, request=request)
        reply = _reply_or_error(reply)
        if isinstance(reply, EndpointError):
            raise reply
        return reply

    def _name(self, request: dict[str, Any]) -> str:
        return request_digest(self.base_url, request)

    @checked
    def _request(
        self,
        messages: Messages,
        *,
        max_tokens: int | None = 256,
        temperature: float | None = 0.0,
        top_logprobs: int | None = None,
        seed: int | None = None,
    ) -> dict[str, Any]:
        request = {
            "model": self.model,
            "messages": [dict(message) for message in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
            "logprobs": True if top_logprobs else None,
            "top_logprobs": top_logprobs,
            "seed": seed,
            **self.extra,
        }
        return {name: value for name, value in request.items() if value is not None}


def _reply_or_error(reply: Reply) -> Reply | EndpointError:
    """Return the reply, or an error if the model wrote no text. Empty replies are paid for and stored too."""
    if reply.text:
        return reply
    return EndpointError(
        f"the model answered without text (finish_reason {reply.finish!r})", status=200, without_text=True
    )
