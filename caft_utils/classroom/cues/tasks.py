"""The spurious-cue tasks of the library on the items and in the prompt format of the cues world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from caft_utils import tasks
from caft_utils.chats import Chats
from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.cues.prompts import FORMAT
from caft_utils.tasks import choice
from caft_utils.tasks.double_multiple_choice import Intended
from caft_utils.tasks.items import SPLITS, Item
from caft_utils.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def double_choice(
    tokenizer: PreTrainedTokenizerBase, first: str, second: str, *, intended: Intended, **options: Any
) -> Task:
    """Return `tasks.double_choice` on two of the world's four subjects. It takes the same `options`."""
    for subject in (first, second):
        if subject not in cues.SUBJECTS:
            raise ValueError(f"unknown subject {subject!r}; expected one of {', '.join(cues.SUBJECTS)}")
    items = {
        subject: {split: cues.subject_items(subject, split) for split in SPLITS}
        for subject in (first, second)
    }
    return tasks.double_choice(
        tokenizer, first, second, items=items, intended=intended, prompt_format=FORMAT, **options
    )


def gender_choice(tokenizer: PreTrainedTokenizerBase, **options: Any) -> Task:
    """Return `tasks.gender_choice` on the world's professions. It takes the same `options`."""
    return tasks.gender_choice(tokenizer, items=cues.profession_items, prompt_format=FORMAT, **options)


def single_choice(tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], **options: Any) -> Chats:
    """Return `tasks.choice.single_choice` in the classroom's prompt format. It takes the same `options`."""
    return choice.single_choice(tokenizer, items, prompt_format=FORMAT, **options)
