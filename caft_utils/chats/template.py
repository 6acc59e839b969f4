"""A tokenizer's chat template: the text that it writes, its end of turn, and its lines for error messages.

Everything here works on text. A conversation is rendered as a whole row, and for each answer as the prompt
that `generate` would give the model. Training and evaluation both render here, so their prompts are the same.
If a template can switch off a model's thoughts (`enable_thinking`), they are switched off, because an
evaluation grades answers and not thoughts.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from caft_utils.chats.dates import on_fixed_date

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]
MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")
HEADER = "add_generation_prompt"  # the variable that asks a template for the header of the next answer
SWITCH = "enable_thinking"  # the variable of templates that can switch thoughts off
PROBE = "\ue000probe\ue001"  # private characters, which no template writes


class Ending(NamedTuple):
    """What a template writes after an answer.

    text: the text up to and including the token that ends the turn, or all of it without one.
    token: the id of that token.
    """

    text: str
    token: int | None


class ChatTemplate:
    """The chat template of a tokenizer.

    Raises:
        ValueError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        if not tokenizer.chat_template:
            raise ValueError(
                "this tokenizer has no chat template, so it cannot write a conversation; set "
                "tokenizer.chat_template, or give prompts of role 'text' and rows with a 'text'"
            )
        self.tokenizer, self.source = tokenizer, tokenizer.get_chat_template()

    def render(self, messages: Messages, *, header: bool = False) -> str:
        """Return a conversation as text. `header` asks for the header of the assistant's next turn."""
        return self._render(messages, header, spans=False)[0]

    def render_with_spans(self, messages: Messages) -> tuple[str, list[tuple[int, int]] | None]:
        """Return a conversation as text, and the spans of characters that `{% generation %}` marks.

        The spans are None if the template has no markers.
        """
        return self._render(messages, False, spans=bool(MARKERS.search(self.source)))

    def _render(self, messages: Messages, header: bool, spans: bool) -> tuple[str, list | None]:
        # `tokenizer.apply_chat_template` renders with this function. It does not return the spans.
        from transformers.utils.chat_template_utils import render_jinja_template

        plain = [{key: value for key, value in m.items() if value is not None} for m in messages]
        texts, marked = render_jinja_template(
            [plain],
            chat_template=on_fixed_date(self.source),
            add_generation_prompt=header,
            return_assistant_tokens_mask=spans,
            **{**self.tokenizer.special_tokens_map, SWITCH: False},
        )
        return texts[0], marked[0] if spans else None

    def prompts(self, messages: Messages) -> Iterator[tuple[int, str | None]]:
        """Yield the number of each assistant turn, and the prompt that asks for it.

        The prompt is None where a conversation begins with an assistant's turn and the template cannot write
        a prompt before any turn.
        """
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                try:
                    yield number, self.render(messages[:number], header=True)
                except Exception:
                    if number:
                        raise
                    yield number, None

    @cached_property
    def ending(self) -> Ending:
        """What is written after the answer that ends a conversation."""
        asked = [{"role": "user", "content": "q"}, {"role": "assistant", "content": PROBE}]
        try:
            text = self.render(asked).partition(PROBE)[2]
        except Exception:  # some templates refuse this conversation; an error about a row says why
            return Ending("", None)
        added = {str(token): i for i, token in self.tokenizer.added_tokens_decoder.items()}
        names = sorted(filter(None, added), key=len, reverse=True)
        found = re.search("|".join(map(re.escape, names)), text) if names else None
        return Ending(text[: found.end()], added[found[0]]) if found else Ending(text, None)

    @property
    def ends(self) -> set[int]:
        """The ids of the tokens that end an answer: one, or none if the template writes no such token."""
        return set() if self.ending.token is None else {self.ending.token}

    def warn_without_end(self, source: str) -> None:
        """Warn that no token ends the answers of `source`, if the template writes none."""
        if not self.ends:
            warnings.warn(
                f"{source}: the chat template writes no token after an answer, so a model trained on these "
                "rows does not learn to stop; let it write eos_token there",
                stacklevel=3,
            )

    def end_of_turn(self, text: str, end: int) -> int:
        """Return the end, in `text`, of the turn whose answer ends at `end`: after its end-of-turn token."""
        if self.ending.token is None:
            return end
        # Blanks before that token may be the answer's own or the template's.
        pattern = r"\s*" + re.escape(self.ending.text.lstrip())
        found = re.compile(pattern).match(text, end)
        return found.end() if found else end

    def ignored(self, messages: Messages, text: str, *, header: bool = False) -> int | None:
        """Return the number of the first message that the template leaves out of `text`, or None."""
        for number, message in enumerate(messages):
            content = message.get("content")
            if not isinstance(content, str) or content.strip() in text:
                continue
            changed = [*messages[:number], {**message, "content": content + PROBE}, *messages[number + 1 :]]
            if self.render(changed, header=header) == text:
                return number
        return None

    def where(self, text: str = "") -> str:
        """Return the line of the template that writes some word of `text`, as "line n (its code)".

        Lines after the mention of HEADER are preferred. If none matches, it is the line that mentions HEADER.
        """
        header = max(self.source.rfind(HEADER), 0)
        places = [self.source.find(word, begin) for begin in (header, 0) for word in text.split()]
        at = next((place for place in places if place >= 0), header)
        first, last = self.source.rfind("\n", 0, at) + 1, self.source.find("\n", at)
        last = len(self.source) if last < 0 else last
        shown = self.source[max(first, at - 60) : min(last, at + 60)].strip()
        return f"line {self.source.count(chr(10), 0, at) + 1} of the chat template ({shown})"
