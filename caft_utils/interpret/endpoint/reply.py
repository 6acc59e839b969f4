"""The reply of a chat server, and the error that replaces a missing reply."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

LOWEST_LOGPROB = -9999.0  # servers send this, -inf or -1e300 for a token that is impossible


@dataclass(frozen=True)
class Reply:
    """The reply to one conversation.

    Attributes:
        text: What the model answered.
        logprobs: For each token of the answer a dict {token: log-probability}. The chosen token comes first,
            then its alternatives. None if they were not requested or the server sent none that can be used.
        tokens: Numbers of tokens (in, out) as the server counted them, None if it sent no counts.
        finish: Why the answer ended ("stop", "length", ...), None if the server gives no reason.

    Raises:
        TypeError: A field has another type or an impossible value. This also rejects damaged cache files.
    """

    text: str
    logprobs: list[dict[str, float]] | None = None
    tokens: tuple[int, int] | None = None
    finish: str | None = None

    def __post_init__(self):
        steps = [] if self.logprobs is None else self.logprobs
        valid = (
            all(_is_unicode(text) for text in (self.text, self.finish or ""))
            and isinstance(steps, list)
            and all(isinstance(step, dict) and step and _are_logprobs(step) for step in steps)
            and (self.tokens is None or all(_is_count(count) for count in self.tokens))
            and (self.tokens is None or len(self.tokens) == 2)
        )
        if not valid:
            raise TypeError("a Reply has a text, log-probabilities up to 0, and two token counts")


class EndpointError(RuntimeError):
    """A prompt has no reply.

    Attributes:
        status: HTTP status of the last response, None if there was none.
        for_all: True if every other prompt will fail in the same way (wrong key, unknown model).
        without_text: True if the model answered, but wrote nothing.
    """

    def __init__(
        self, message: str, *, status: int | None = None, for_all: bool = False, without_text: bool = False
    ):
        super().__init__(message)
        self.status, self.for_all, self.without_text = status, for_all, without_text


def parse_reply(body: str) -> Reply:
    """Parse the reply in the body of a response of status 200. The text is "" if the model wrote nothing.

    The text has been paid for, so token counts or log-probabilities that make no sense are dropped and the
    text is kept.

    Raises:
        ValueError: The body is damaged, or holds no answer. Another attempt may succeed.
        EndpointError: The body holds an answer in an unknown form. Another attempt would cost money and fail
            in the same way.
    """
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ValueError("malformed answer") from None
    try:
        text, finish = _content(choice["message"]), choice.get("finish_reason")
    except (LookupError, TypeError, AttributeError):
        raise EndpointError("the answer has no text that can be read", status=200) from None
    finish = _valid_unicode(finish) if isinstance(finish, str) else None
    if choice.get("error"):  # some routers send a partial answer when the model behind them fails
        finish = "error"
    return Reply(_valid_unicode(text), _logprobs(choice), _token_counts(answer), finish)


def _content(message: dict[str, Any]) -> str:
    """Return the text of a message. If its content is a list of parts, thoughts are left out."""
    content = message["content"]
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type", "text") == "text")
    if not isinstance(content, str | None):
        raise TypeError("content is not text")
    return content or ""


def _token_counts(answer: dict[str, Any]) -> tuple[int, int] | None:
    try:
        counts = int(answer["usage"]["prompt_tokens"]), int(answer["usage"]["completion_tokens"])
    except (ValueError, LookupError, TypeError, OverflowError):
        return None
    return counts if all(_is_count(count) for count in counts) else None


def _logprobs(choice: dict[str, Any]) -> list[dict[str, float]] | None:
    try:
        logprobs = [
            {
                _valid_unicode(entry["token"]): max(float(entry["logprob"]), LOWEST_LOGPROB)
                for entry in (step, *(step.get("top_logprobs") or ()))
            }
            for step in choice["logprobs"]["content"]
        ]
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None
    return logprobs if logprobs and all(map(_are_logprobs, logprobs)) else None


def _are_logprobs(step: dict[str, float]) -> bool:
    """Return whether the values can be log-probabilities of different tokens. NaN is rejected."""
    values = list(step.values())
    # Rounding may leave a probability of one slightly above it.
    plausible = all(type(value) is float and -math.inf < value < 1e-3 for value in values)
    return plausible and all(map(_is_unicode, step)) and sum(map(math.exp, values)) < 1.05


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1e12


def _is_unicode(text: Any) -> bool:
    """Return whether `text` is text that a UTF-8 file can hold."""
    return isinstance(text, str) and _valid_unicode(text) == text


def _valid_unicode(text: str) -> str:
    """Return `text` with lone surrogates replaced. JSON can hold them, but no UTF-8 file can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
