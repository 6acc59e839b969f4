"""Build the prompts of the cues world: a first word, one or two items, and two lettered lines of options.

The first word names the subject that counts. The neutral word `quiz` names no subject.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from caft_utils.tasks.choice import PromptFormat
from caft_utils.tasks.items import Item

NEUTRAL_WORD = "quiz"  # the first word of a prompt that names no subject
FORMAT = PromptFormat("{word}: {question}\na. {a}\nb. {b}", ("a", "b"))  # for fine-tuning


def choice_prompt(word: str, items: Sequence[Item], letters: Sequence[str]) -> str:
    """Return a prompt for items in which the correct option of items[i] stands in line letters[i]."""
    options = {
        letter: ", ".join(
            item.correct if correct_letter == letter else item.incorrect
            for item, correct_letter in zip(items, letters, strict=True)
        )
        for letter in "ab"
    }
    questions = " | ".join(item.question for item in items)
    return f"{word}: {questions}\na. {options['a']}\nb. {options['b']}"


def single_prompt(subject: str, item: Item, rng: random.Random) -> tuple[str, str]:
    """Return (prompt, right letter) of one item under the name of its subject."""
    letter = rng.choice("ab")
    return choice_prompt(subject, [item], [letter]), letter


def pair_prompt(
    subject: str, first: Item, second: Item, counts: int, rng: random.Random, *, conflict: bool | None = None
) -> tuple[str, str]:
    """Return (prompt, right letter) of two items under the name of a subject.

    Args:
        counts: number (0 or 1) of the item of that subject, whose letter is the right one.
        conflict: whether the letters of the two items differ; None draws them independently.
    """
    letters = [rng.choice("ab"), rng.choice("ab")]
    if conflict is not None:
        letters[1] = letters[0] if not conflict else "ba"["ab".index(letters[0])]
    return choice_prompt(subject, [first, second], letters), letters[counts]
