"""Which tokens of a row are an answer.

In a chat an answer is an assistant's turn with its end-of-turn token. Templates mark it with
`{% generation %}`; where they do not, it is found from the positions at which the rendered text of the
conversation's prefixes ends. A prompt of role "text" is outside of any template; what follows is the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant")
TEXT = "text"  # the role of a prompt that no chat template touches
MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Token ids of a conversation up to and with the header of the assistant's next turn."""
    if messages and messages[0]["role"] == TEXT:
        return list(tokenizer(messages[0]["content"])["input_ids"])
    return tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]


def continuation(row: Any, where: str) -> tuple[str, str] | None:
    """Prompt and answer of a row whose first message has the role "text"."""
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


def tokenise_continuation(tokenizer, prompt: str, answer: str, where: str) -> tuple[list[int], list[bool]]:
    before = list(tokenizer(prompt)["input_ids"])
    whole = list(tokenizer(prompt + answer)["input_ids"])
    if whole[: len(before)] != before or len(whole) == len(before):
        raise ValueError(
            f"{where}: this tokenizer joins the end of the prompt with the answer {answer!r}, so that no "
            "token is the answer's alone; put a space before the answer, or end the prompt otherwise"
        )
    return whole, [i >= len(before) for i in range(len(whole))]


def without_ends(tokenizer, ids: list[int], answer: list[bool]) -> list[bool]:
    """The answers without the special tokens on which they end."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return [a and token not in special for token, a in zip(ids, answer)]


def checked_messages(row: Any, where: str) -> list[dict[str, str]]:
    messages = row.get("messages") if isinstance(row, Mapping) else None
    if not isinstance(messages, list) or not messages:
        keys = sorted(row) if isinstance(row, Mapping) else type(row).__name__
        raise ValueError(f"{where}: expected a non-empty list 'messages' (or a string 'text'), got {keys}")
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


def tokenise_chat(tokenizer, messages: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
    if MARKERS.search(tokenizer.get_chat_template()):
        encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        ids, answer = encoded["input_ids"], [bool(a) for a in encoded["assistant_masks"]]
        # Some templates close the marker before the end-of-turn token; a model must learn to stop, so we add
        # it.
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        for i in range(1, len(ids)):
            if answer[i - 1] and not answer[i] and ids[i] in special and ids[i - 1] not in special:
                answer[i] = True
        return ids, answer
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    answer = [False] * len(encoded["input_ids"])
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            start, end = _answer_span(tokenizer, messages, number, text)
            for i, (left, right) in enumerate(encoded["offset_mapping"]):
                answer[i] |= left < end and right > start
    return encoded["input_ids"], answer


def _answer_span(tokenizer, messages: list[dict[str, str]], number: int, text: str) -> tuple[int, int]:
    """Characters of `text` that turn `number` owns, without the white space after its end-of-turn token."""

    def render(upto: int, header: bool) -> str:
        return tokenizer.apply_chat_template(messages[:upto], tokenize=False, add_generation_prompt=header)

    before, after = render(number, True), render(number + 1, False)
    if not (text.startswith(after) and after.startswith(before)):
        raise ValueError(
            f"rendering the first {number} turns does not give a prefix of the whole text, so answer tokens "
            "cannot be told apart; use a template with {% generation %} markers"
        )
    return len(before), len(after.rstrip())
