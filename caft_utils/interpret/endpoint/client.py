"""A language model behind an OpenAI-compatible `/chat/completions`, and never asked the same thing twice.

Every reply is kept under the sha256 of address, model and request, so a run that was killed goes on where it
stopped, and a run that was recorded can be repeated without a server. What a run will take can be asked
before it: `endpoint.estimate(prompts)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from caft_utils.interpret.endpoint.response_cache import EndpointError, Reply, ResponseCache
from caft_utils.interpret.endpoint.transport import Sender
from caft_utils.store import Store, default_store, digest

__all__ = ["Endpoint", "EndpointError", "Estimate", "Reply"]

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, repr=False)
class Estimate:
    """What a run will take: a guess from the length of the text (4 bytes a token) and the longest answers.

    prompts: all of them; kept: those whose reply is kept or that repeat another, and cost nothing; cost: in
    dollars, None where the price is unknown; minutes: what the rate limit alone makes of it.
    """

    prompts: int
    kept: int
    tokens_in: int
    tokens_out: int
    cost: float | None
    minutes: float

    def __repr__(self) -> str:
        cost = "the price is unknown" if self.cost is None else f"about ${self.cost:,.4f} at most"
        wait = f"; {self.minutes:.1f} minutes or more" if self.minutes else ""
        return (
            f"{self.prompts} prompts, {self.kept} of them answered already: about {self.tokens_in:,} tokens "
            f"in, at most {self.tokens_out:,} out; {cost}{wait}"
        )


class Endpoint:
    """A chat model on a server.

    Args:
        base_url: up to and without "/chat/completions", e.g. "https://api.openai.com/v1".
        key_env: the environment variable that holds the API key; where it is not set, none is sent.
        cache: folder (or store) of the replies; default: the machine's store.
        price: dollars for a million tokens (in, out), as the provider states it.
        per_minute: requests a minute, evenly spaced. workers: requests under way at once.
        attempts: how often a prompt is tried. backoff: the first and the longest wait between, in seconds.
        patience: the longest Retry-After that is obeyed, in seconds; a longer one is an error.
        timeout: seconds for a whole answer.
        extra: more fields of a request; None takes one away, e.g. {"max_tokens": None,
            "max_completion_tokens": 300} for models that have renamed it.

    Raises:
        ValueError: an address that is not http(s), or that holds a password or a query.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_env: str | None = "OPENAI_API_KEY",
        cache: str | Path | Store | None = None,
        price: tuple[float, float] | None = None,
        per_minute: float | None = None,
        workers: int = 4,
        attempts: int = 6,
        backoff: tuple[float, float] = (1.0, 60.0),
        patience: float = 300.0,
        timeout: float = 60.0,
        extra: Mapping[str, Any] | None = None,
    ):
        parts = urlsplit(base_url)
        if parts.username or parts.password or parts.query or parts.fragment:
            # Not shown: what stands there is most likely a secret.
            raise ValueError("base_url must hold no password and no query; put the key into the environment")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"base_url must begin with http:// or https:// and name a host, got {base_url!r}"
            )
        limits = {"workers": workers, "attempts": attempts, "timeout": timeout, "per_minute": per_minute}
        if wrong := {name: value for name, value in limits.items() if value is not None and value <= 0}:
            raise ValueError(f"must be above zero: {wrong} (per_minute=None sets no limit)")
        self.base_url, self.model, self.key_env = base_url.rstrip("/"), model, key_env
        if cache is None or isinstance(cache, Store):
            cache = (cache or default_store()).root / "replies"
        self.cache = Path(cache).expanduser()
        self.price, self.per_minute, self.workers = price, per_minute, workers
        self.extra = dict(extra or {})
        self._paid: list[tuple[int, int]] = []
        self._kept = ResponseCache(self.cache)
        self._sender = Sender(
            f"{self.base_url}/chat/completions", key_env, per_minute, attempts, backoff, patience, timeout
        )

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, {self.model!r})"

    def chat(self, messages: Messages, **settings: Any) -> Reply:
        """The reply to one conversation; settings as in `chat_all`.

        Raises:
            EndpointError: no reply, after all attempts or because another attempt would not help.
        """
        return self._reply(self._request(messages, **settings), Event())

    def chat_all(
        self, prompts: Sequence[Messages], *, progress: bool = False, **settings: Any
    ) -> list[Reply | EndpointError]:
        """Replies to many conversations, in their order; equal ones are asked once.

        A prompt that fails leaves its error in its place. After a failure that is the same for all (a wrong
        key, an unknown model) no further prompt is asked. Interrupted, it keeps what has come.

        Settings:
            max_tokens: of an answer (256). temperature: 0. top_logprobs: alternatives wanted for each token.
            seed: with a temperature, another seed is another reply; the same one is taken from the cache.
        """
        requests = [self._request(messages, **settings) for messages in prompts]
        names = [self._name(request) for request in requests]
        found: dict[str, Reply | EndpointError | None] = {name: self._kept.get(name) for name in names}
        stop, lost = Event(), []

        def one(request: dict[str, Any]) -> Reply | EndpointError:
            try:
                return lost[0] if lost else self._reply(request, stop)
            except EndpointError as error:
                if error.for_all:
                    lost.append(error)
                return error

        todo = {name: request for name, request in zip(names, requests) if found[name] is None}
        with ThreadPoolExecutor(self.workers) as pool:
            futures = {pool.submit(one, request): name for name, request in todo.items()}
            done = as_completed(futures)
            if progress:
                from tqdm.auto import tqdm

                done = tqdm(done, total=len(futures), desc=f"asking {self.model}", unit="prompt")
            try:
                for future in done:
                    found[futures[future]] = future.result()
            except BaseException:
                stop.set()  # ends waits between attempts; requests under way are still received and kept
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [found[name] for name in names]

    def estimate(self, prompts: Sequence[Messages], **settings: Any) -> Estimate:
        """What `chat_all(prompts, **settings)` will take; nothing is asked."""
        requests = {self._name(r): r for r in (self._request(m, **settings) for m in prompts)}
        todo = [request for name, request in requests.items() if self._kept.get(name) is None]
        texts = [message["content"].encode() for request in todo for message in request["messages"]]
        tokens_in = sum(math.ceil(len(text) / 4) + 4 for text in texts)  # and 4 for a turn's markup
        tokens_out = sum(r.get("max_tokens") or r.get("max_completion_tokens") or 256 for r in todo)
        cost = self.price and (tokens_in * self.price[0] + tokens_out * self.price[1]) / 1e6
        minutes = len(todo) / self.per_minute if self.per_minute else 0.0
        return Estimate(len(prompts), len(prompts) - len(todo), tokens_in, tokens_out, cost, minutes)

    @property
    def used(self) -> tuple[int, int]:
        """Tokens (in, out) that this object was sent, as the server counted them."""
        paid = list(self._paid)
        return sum(entry[0] for entry in paid), sum(entry[1] for entry in paid)

    def _reply(self, request: dict[str, Any], stop: Event) -> Reply:
        name = self._name(request)
        reply = self._kept.get(name)
        if reply is None:
            reply = self._sender.send(request, stop)
            self._paid.append(reply.tokens or (0, 0))
            self._kept.put(name, reply, base_url=self.base_url, request=request)
        return reply

    def _name(self, request: dict[str, Any]) -> str:
        return digest({"base_url": self.base_url, **request})

    def _request(
        self,
        messages: Messages,
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
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
