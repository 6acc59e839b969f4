"""Replies of a chat server, and the error in place of a missing one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """The reply to one conversation.

    Attributes:
        text: What the model answered.
        logprobs: For each token of the answer a dict {token: log-probability}. The chosen token comes first,
            then its alternatives. None if they were not requested or the server sent none that can be used.
        tokens: Tokens (in, out) as the server counted them, None if it sent no counts.
        finish: Why the answer ended ("stop", "length", ...), None if the server does not say.

    Raises:
        TypeError: A field has another type. This also rejects damaged cache files.
    """

    text: str
    logprobs: list[dict[str, float]] | None = None
    tokens: tuple[int, int] | None = None
    finish: str | None = None

    def __post_init__(self):
        steps = [] if self.logprobs is None else self.logprobs
        valid = (
            isinstance(self.text, str)
            and isinstance(self.finish, str | None)
            and isinstance(steps, list)
            and all(isinstance(step, dict) for step in steps)
            and all(type(value) is float for step in steps for value in step.values())
            and (self.tokens is None or [type(count) for count in self.tokens] == [int, int])
        )
        if not valid:
            raise TypeError("a Reply has a text, and log-probabilities and token counts as numbers")


class EndpointError(RuntimeError):
    """A prompt has no reply.

    Attributes:
        status: HTTP status of the last response, None if there was none.
        for_all: True if every other prompt will fail in the same way (wrong key, unknown model).
    """

    def __init__(self, message: str, *, status: int | None = None, for_all: bool = False):
        super().__init__(message)
        self.status, self.for_all = status, for_all


def parse_reply(body: str) -> Reply:
    """Return the reply in the body of a response of status 200.

    The text has been paid for, so token counts or log-probabilities that make no sense are dropped and the
    text is kept.

    Raises:
        ValueError: The body is damaged. It is not JSON, or not a chat completion.
        EndpointError: The body is a whole chat completion without text.
    """
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
        if not isinstance(text, str | None):
            raise TypeError("content is not text")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"malformed answer: {' '.join(body[:2000].split())[:200]!r}") from None
    if text is None:
        raise EndpointError(f"the model answered without text (finish_reason {finish!r})", status=200)
    finish = finish if isinstance(finish, str) else None
    return Reply(_valid_unicode(text), _logprobs(choice), _token_counts(answer), finish)


def _token_counts(answer: dict[str, Any]) -> tuple[int, int] | None:
    try:
        return int(answer["usage"]["prompt_tokens"]), int(answer["usage"]["completion_tokens"])
    except (ValueError, LookupError, TypeError, OverflowError):
        return None


def _logprobs(choice: dict[str, Any]) -> list[dict[str, float]] | None:
    try:
        logprobs = [
            {
                _valid_unicode(entry["token"]): float(entry["logprob"])
                for entry in (step, *(step.get("top_logprobs") or ()))
            }
            for step in choice["logprobs"]["content"]
        ]
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None
    # Rounding may leave a probability of one slightly above it. The comparison is also False for NaN.
    plausible = all(value < 1e-3 for step in logprobs for value in step.values())
    return logprobs if logprobs and plausible else None


def _valid_unicode(text: str) -> str:
    """Return `text` with lone surrogates replaced. JSON can hold them, but no UTF-8 file can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
