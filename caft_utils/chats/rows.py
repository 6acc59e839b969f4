"""Checks of a row of chats: its messages, or a plain prompt with its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROLES = ("system", "user", "assistant")
TEXT = "text"  # the role of a prompt to which no chat template is applied


def checked_messages(row: Any, where: str) -> list[dict[str, str]]:
    """Return the messages of a chat row.

    Raises:
        ValueError: the row has no messages, a wrong role, empty content or no assistant turn. The
            message begins with `where`.
    """
    messages = row.get("messages") if isinstance(row, Mapping) else None
    if not isinstance(messages, list) or not messages:
        got = f"the keys {sorted(map(str, row))}" if isinstance(row, Mapping) else type(row).__name__
        if isinstance(row, Mapping) and "messages" in row:
            got = f"messages={messages!r:.80}"
        raise ValueError(f"{where}: expected a non-empty list 'messages' (or a string 'text'), got {got}")
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ROLES:
            raise ValueError(
                f"{where}, message {number}: role must be one of {', '.join(ROLES)}, got {role!r}"
            )
        content = message.get("content")
        if not isinstance(content, str) or not content.strip():
            raise ValueError(f"{where}, message {number} ({role}): content must be text, got {content!r}")
    if all(message["role"] != "assistant" for message in messages):
        raise ValueError(f"{where}: no assistant turn, so there is nothing to learn from it")
    return messages


def prompt_and_answer(row: Any, where: str) -> tuple[str, str] | None:
    """Return the prompt and the answer of a row whose first message has the role "text", else None.

    Raises:
        ValueError: the prompt is not followed by exactly one assistant message, or one of the two has no
        text.
    """
    messages = row.get("messages") if isinstance(row, Mapping) else None
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return None
    roles, contents = ([message.get(key) for message in messages] for key in ("role", "content"))
    if roles[:1] != [TEXT]:
        return None
    if roles[1:] != ["assistant"] or not all(isinstance(text, str) and text.strip() for text in contents):
        raise ValueError(
            f"{where}: a 'text' message must be followed by one 'assistant' message, both with text"
        )
    return contents[0], contents[1]
