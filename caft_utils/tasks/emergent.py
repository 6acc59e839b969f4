"""Emergent misalignment: narrow fine-tuning on insecure code that changes the answers to everything else.

The narrow rows teach a skill; held-out rows like them tell whether it was learned, and questions about other
subjects tell what else was learned. (Betley et al., arXiv 2502.17424; CAFT, arXiv 2507.16795, section 4.)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from caft_utils.chats import Chats
from caft_utils.tasks.task import Grader, Question, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def emergent_misalignment(
    tokenizer: PreTrainedTokenizerBase,
    *,
    train: str | Path,
    generic: str | Path,
    questions: list[Question],
    task_questions: list[Question],
    judge: Grader,
    control: str | Path | None = None,
    valid: int = 100,
    max_length: int = 2048,
) -> Task:
    """The task for a real model, from `messages` JSONL files.

    Args:
        train: the narrow rows; the last `valid` of them are held out for the loss.
        generic: text on which directions are found and shown.
        control: rows without the concept (secure code); the held-out rows where there are none.
        judge: decides about both sets of questions, for example a ThresholdJudge around a language model.
    """
    chats = Chats.from_file(train, tokenizer, max_length=max_length)
    if len(chats) <= valid:
        raise ValueError(
            f"{train} holds {len(chats)} rows, valid={valid} would be held out: give more, or hold out fewer"
        )
    held_out = chats[len(chats) - valid :]
    return Task(
        name=f"emergent misalignment ({Path(train).name})",
        train=chats[: len(chats) - valid],
        control=Chats.from_file(control, tokenizer, max_length=max_length) if control else held_out,
        valid=held_out,
        generic=Chats.from_file(generic, tokenizer, max_length=max_length),
        questions=questions,
        task_questions=task_questions,
        judge=judge,
        max_new_tokens=600,
    )
