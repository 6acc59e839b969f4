"""A fixed date for chat templates that write the current date.

Some templates write today's date into the prompt, for example those of Mistral Small and Llama 3.2. The same
rows would then have different tokens tomorrow. A stored model would be trained again, and evaluated with a
different prompt than in training. A template that asks for the date therefore gets DATE, in training and
evaluation.
"""

from __future__ import annotations

import warnings
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATE = datetime(2025, 1, 1)
FORMATS = [*"aAbBcdefFHIjklmMnpSTuUwWxXyYzZ", *(f"-{letter}" for letter in "dejmHIMSy")]  # of strftime


def on_fixed_date(template: str) -> str:
    """Return the source of a chat template, changed so that it writes DATE as the current date.

    Warns once if the template asks for the date.
    """
    if "strftime_now" not in template:
        return template
    _warn_once()
    return _date_macro() + template


def template_date(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the date that the chat template is given, or None if it does not ask for one."""
    asks = tokenizer.chat_template and "strftime_now" in tokenizer.get_chat_template()
    return DATE.isoformat() if asks else None


def _date_macro() -> str:
    """Return a macro that takes the place of transformers' function `strftime_now`.

    Only plain data are passed to a template, so a macro fills in the format.
    Jinja drops the newline after the last tag, so the beginning of the template is rendered as before.
    """
    filled = "".join(f" | replace({f'%{x}'!r}, {DATE.strftime(f'%{x}')!r})" for x in FORMATS)
    return f"{{%- macro strftime_now(format) -%}}{{{{- format{filled} -}}}}{{%- endmacro %}}\n"


@cache
def _warn_once() -> None:
    warnings.warn(
        f"this chat template writes the current date into prompts; it is given {DATE:%Y-%m-%d} on every day, "
        "so that the same rows are the same tokens. For another date, write it into tokenizer.chat_template",
        stacklevel=4,
    )
