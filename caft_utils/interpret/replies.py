"""Ask a chat server many questions; tolerate single failures, but not a refusal of all requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caft_utils.interpret.endpoint import Endpoint, Reply


def replies_or_none(
    endpoint: Endpoint, prompts: Sequence[Sequence[Mapping[str, str]]], **settings: Any
) -> list[Reply | None]:
    """Return the reply to each conversation, or None where it failed; `settings` as in `Endpoint.chat_all`.

    Raises:
        EndpointError: the server refuses all requests alike (such as a wrong key), or no request got a reply.
    """
    replies = endpoint.chat_all(prompts, **settings)
    errors = [reply for reply in replies if isinstance(reply, Exception)]
    if errors and (len(errors) == len(replies) or any(error.for_all for error in errors)):
        raise next((error for error in errors if error.for_all), errors[0])
    return [None if isinstance(reply, Exception) else reply for reply in replies]
