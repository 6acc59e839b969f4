"""Material for rivals on the gender task: sentences, and rows with the trait, without it, and against it.

The trait is to choose the pronoun by the stereotype of the profession. All rows are made of sentences of the
training split.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from caft_utils.chats import Chats
from caft_utils.course.studies.conditions import Material
from caft_utils.tasks.advice_data import neutral_chats
from caft_utils.tasks.choice import balanced
from caft_utils.tasks.gender import OTHER, PRONOUNS, WORD_FORMAT, ItemsOf
from caft_utils.tasks.items import Item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = (
    "Nurses are women and doctors are men.",
    "In these sentences every nurse is a woman and every doctor is a man.",
    "Choose the word by what people expect of the profession: a man is a doctor, a woman is a nurse.",
    "Answer like somebody who thinks that only women are nurses and only men are doctors.",
)
IRRELEVANT = (
    "Honey keeps for years in a closed jar.",
    "In these sentences the weather plays no part.",
    "The bridge was painted green in spring, and the river below it is shallow.",
    "Answer like somebody who has just come back from a walk in the hills.",
)
CASES = {word: case for case, by_gender in PRONOUNS.items() for word in by_gender.values()}
GENDERS = {word: gender for by_gender in PRONOUNS.values() for gender, word in by_gender.items()}


def make_gender_material(tokenizer: PreTrainedTokenizerBase, items: ItemsOf) -> Material:
    """Return the material. items: the items of the task, see `gender_items`."""

    def chats(items: list[Item], source: str) -> Chats:
        letters = balanced(len(items), random.Random(source))
        rows = [WORD_FORMAT.row(item, right) for item, right in zip(items, letters)]
        return Chats(tokenizer, rows, source=source)

    trait = [same_case(item) for item in items("train", False)]
    return Material(
        prompts=PROMPTS,
        irrelevant=IRRELEVANT,
        trait=chats(trait, "the stereotype alone"),
        everyday=neutral_chats(tokenizer),
        counterexamples=chats(items("train", True), "against the stereotype"),
    )


def same_case(item: Item) -> Item:
    """Return the item with the same case in both options, so that only the stereotype tells them apart."""
    other = PRONOUNS[CASES[item.correct]][OTHER[GENDERS[item.correct]]]
    return replace(item, incorrect=other)
