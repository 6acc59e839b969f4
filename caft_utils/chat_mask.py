"""The answer mask: which tokens of a row belong to an assistant's answer.

In a chat an answer is an assistant's turn with its end-of-turn token. Templates mark it with
`{% generation %}`. In a template without markers it is found by rendering the conversation's prefixes: the
text that a turn adds is its answer. A prompt with the role "text" is outside any template, and the text after
it is the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from caft_utils.chat_templates import apply_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant")
TEXT = "text"  # the role of a prompt to which no chat template is applied
MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Return the token ids of a conversation, up to and including the header of the assistant's next turn."""
    if messages and messages[0]["role"] == TEXT:
        return list(tokenizer(messages[0]["content"])["input_ids"])
    encoded = apply_template(tokenizer, messages, add_generation_prompt=True, return_dict=True)
    return encoded["input_ids"]


def checked_messages(row: Any, where: str) -> list[dict[str, str]]:
    """Return the messages of a chat row.

    Raises:
        ValueError: the row has no messages, a wrong role, empty content or no assistant turn. The
            message begins with `where`.
    """
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


def tokenise_continuation(
    tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, where: str
) -> tuple[list[int], list[bool]]:
    """Return the token ids of a prompt with its answer, and the answer mask.

    Raises:
        ValueError: a token spans the end of the prompt and the beginning of the answer.
    """
    before = list(tokenizer(prompt)["input_ids"])
    whole = list(tokenizer(prompt + answer)["input_ids"])
    if whole[: len(before)] != before or len(whole) == len(before):
        raise ValueError(
            f"{where}: this tokenizer joins the end of the prompt with the answer {answer!r}, so no "
            "token belongs to the answer alone; put a space before the answer, or end the prompt differently"
        )
    return whole, [i >= len(before) for i in range(len(whole))]


def tokenise_chat(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]
) -> tuple[list[int], list[bool]]:
    """Return the token ids of a conversation, and the answer mask.

    Raises:
        ValueError: the template has no markers, and a turn changes how the turns before it are rendered.
    """
    if MARKERS.search(tokenizer.get_chat_template()):
        encoded = apply_template(tokenizer, messages, return_dict=True, return_assistant_tokens_mask=True)
        ids, answer = encoded["input_ids"], [bool(a) for a in encoded["assistant_masks"]]
        # Some templates close the marker before the end-of-turn token. A model has to learn to stop, so that
        # token is added to the answer.
        special = _special_ids(tokenizer)
        for i in range(1, len(ids)):
            if answer[i - 1] and not answer[i] and ids[i] in special and ids[i - 1] not in special:
                answer[i] = True
        return ids, answer
    text = apply_template(tokenizer, messages, tokenize=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    answer = [False] * len(encoded["input_ids"])
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            start, end = _answer_span(tokenizer, messages, number, text)
            for i, (left, right) in enumerate(encoded["offset_mapping"]):
                answer[i] |= left < end and right > start
    return encoded["input_ids"], answer


def without_special_tokens(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], answer: list[bool]
) -> list[bool]:
    """Return the answer mask without special tokens, such as the end-of-turn token."""
    special = _special_ids(tokenizer)
    return [a and token not in special for token, a in zip(ids, answer)]


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    return {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}


def _answer_span(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], number: int, text: str
) -> tuple[int, int]:
    """Return the span of characters of turn `number` in `text`, without the white space after its end."""

    def render(turns: int, header: bool) -> str:
        return apply_template(tokenizer, messages[:turns], tokenize=False, add_generation_prompt=header)

    before, after = render(number, True), render(number + 1, False)
    if not (text.startswith(after) and after.startswith(before)):
        raise ValueError(
            f"rendering the first {number} turns does not give a prefix of the whole text, so answer tokens "
            "cannot be told apart; use a template with {% generation %} markers"
        )
    return len(before), len(after.rstrip())
