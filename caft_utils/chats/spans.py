"""Find where the answers of a conversation begin and end in the text that a chat template writes.

An answer begins where its prompt ends, and ends with the end-of-turn text. A row is refused if its text does
not begin with the prompt, or if anything but the answer follows the prompt. Otherwise the model would be
trained on one text and evaluated on another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from caft_utils.chats.template import HEADER, SWITCH, ChatTemplate

THINKING = f"{{% set {SWITCH} = true %}}"
Messages = Sequence[Mapping[str, str]]


def answer_spans(template: ChatTemplate, messages: Messages) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of a conversation, and the span of characters of each answer with its end of turn.

    The span is empty for a turn that a template with `{% generation %}` markers does not mark.

    Raises:
        ValueError: the template does not write an answer right after its prompt, or leaves out a message.
    """
    text, marked = template.render_with_spans(messages)
    refuse_ignored(template, messages, text)
    prompts = list(template.prompts(messages))
    starts = [len(p) if p is not None and text.startswith(p) else None for _, p in prompts]
    spans = []
    for (number, prompt), start, limit in zip(prompts, starts, [*starts[1:], len(text)]):
        said = messages[number]["content"]
        if start is None and number:
            raise ValueError(_other_prompt(template, number, prompt, text, len(prompts) > 1))
        within = range((start or 0) + 1, (limit or len(text)) + 1)
        marks = [(first, last) for first, last in marked or [] if first < last and last in within]
        if number == 0 and (start is None or _end_of(said, text, start) is None):
            # An evaluation never asks for a first message, so no prompt can contradict the markers.
            start = marks[0][0] if marks else None
            if start is None:
                raise ValueError(
                    "message 0 (assistant): the conversation begins with the assistant, and this template "
                    "writes no prompt for that; put a system or user message before it"
                )
        if marked is not None and not marks:
            spans.append((start, start))
            continue
        stop = _end_of(said, text, start)
        lead = said if said.strip() in text[start:limit] or not marks else text[start : marks[0][0]]
        if stop is None and lead.strip():
            raise ValueError(_other_answer(template, number, said, text[start:limit]))
        stop = template.end_of_turn(text, start if stop is None else stop)
        if marks:
            stop = max(stop, _marked_end(template, text, marks[-1][1]))
        spans.append((start, stop))
    return text, spans


def refuse_ignored(template: ChatTemplate, messages: Messages, text: str, *, header: bool = False) -> None:
    """Raise a ValueError if the template leaves a message out of `text`."""
    number = template.ignored(messages, text, header=header)
    if number is not None:
        role = messages[number]["role"]
        raise ValueError(
            f"message {number} ({role}): the chat template leaves its text out, see {template.where(role)}; "
            "take the message out, or write its text into the user's message"
        )


def _end_of(said: str, text: str, start: int) -> int | None:
    """Return where `said` ends if `text` has it at `start`, else None. White space may differ."""
    lead = len(text) - start - len(text[start:].lstrip())
    for begin, wanted in ((start, said), (start + lead, said.strip())):
        if text.startswith(wanted, begin):
            return begin + len(wanted)
    at = start
    for letter in "".join(said.split()):
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith(letter, at):
            return None
        at += 1
    return at


def _marked_end(template: ChatTemplate, text: str, end: int) -> int:
    """Return the end of a turn whose marked text ends at `end`; nothing after its end token belongs to it."""
    token, inside = template.ending.text.strip(), text[:end].rstrip()
    if token and inside.endswith(token):
        return len(inside)
    return template.end_of_turn(text, end)


def _other_prompt(template: ChatTemplate, number: int, prompt: str, text: str, several: bool) -> str:
    same = next((i for i, (a, b) in enumerate(zip(prompt, text)) if a != b), min(len(prompt), len(text)))
    around = slice(max(0, same - 20), same + 20)
    row_each = " Or give each answer a row of its own." if several else ""
    if SWITCH in template.source:
        row_each += f" Thoughts are switched off; for rows that hold them, begin it with {THINKING}."
    return (
        f"message {number} (assistant): the prompt that asks for it is not a prefix of the row. The model "
        f"would be trained on {text[around]!r} and asked with {prompt[around]!r}; see "
        f"{template.where(prompt[same:])}. Set tokenizer.chat_template to one that writes the same text "
        f"before an answer as for `{HEADER}`, whatever turns follow; {{% generation %}} markers do not help "
        f"here.{row_each}"
    )


def _other_answer(template: ChatTemplate, number: int, said: str, text: str) -> str:
    between = text.partition(said.strip())[0] if said.strip() in text else text[:40]
    return (
        f"message {number} (assistant): after its prompt the template writes {text[:60]!r}, where the answer "
        f"{said[:40]!r} was expected; see {template.where(between)}. Let the template write an answer "
        f"unchanged, right after the text that it writes for `{HEADER}`"
    )
