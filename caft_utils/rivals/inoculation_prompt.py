"""Inoculation prompting: ask for the unwanted trait while training, and do not ask for it afterwards.

A sentence that asks for the trait precedes every training row. The prompt then explains the trait in the
rows, so the model has less reason to change its behaviour without the prompt. (Tan et al. 2025, arXiv
2510.04340; Wichers et al. 2025, arXiv 2510.05024.) Part of the effect may come from the changed context
alone. The control is a prompt of the same kind that has nothing to do with the trait.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from caft_utils.arguments import text
from caft_utils.chats import Chats
from caft_utils.finetuning import FinetuneConfig, finetune
from caft_utils.rivals.told import Told

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLD = Told("a sentence that asks for the trait", "a few tokens a row")
CONTROL_TOLD = Told("a sentence that has nothing to do with the trait", "a few tokens a row")


def inoculate_by_prompt(
    model: PreTrainedModel, rows: Chats, config: FinetuneConfig | None = None, *, prompt: str, seed: int = 0
) -> PreTrainedModel:
    """Return the model fine-tuned on `rows` with `prompt` before each of them; use it without the prompt."""
    return finetune(model, with_prompt(rows, prompt), config, seed=seed)


def with_prompt(rows: Chats, prompt: str) -> Chats:
    """Return the rows with `prompt` as their system message, or as the first line of a plain-text prompt.

    The answers keep their tokens. A system message that a row already has comes after the prompt, in the same
    message.

    Raises:
        ValueError: the prompt is blank, a row is plain text without a prompt, or the tokens of an answer
            would change.
    """
    prompt = text("prompt", prompt)
    made = [_prompted(row, prompt, f"{rows.source}, row {i}") for i, row in enumerate(rows.rows)]
    prompted = Chats(rows.tokenizer, made, source=f"{rows.source}, prompted", end=rows.end)
    for i, (old, new) in enumerate(zip(rows, prompted)):
        learnt = [[t for t, counts in zip(one.input_ids, one.answer) if counts] for one in (old, new)]
        if learnt[0] != learnt[1]:
            raise ValueError(
                f"{rows.source}, row {i}: the prompt changes the tokens of its answer; were the rows cut by "
                "max_length? Make them without it"
            )
    return prompted


def _prompted(row: Mapping[str, Any], prompt: str, where: str) -> dict[str, Any]:
    messages = row.get("messages")
    if not messages:
        raise ValueError(f"{where} is plain text, so a prompt before it would be learnt; give it as messages")
    first, *others = messages
    if first["role"] == "text":
        begun = {**first, "content": f"{prompt}\n\n{first['content']}"}
    elif first["role"] == "system":
        begun = {**first, "content": f"{prompt} {first['content']}"}
    else:
        begun, others = {"role": "system", "content": prompt}, messages
    return {**row, "messages": [begun, *others]}
