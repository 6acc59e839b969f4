"""Material for rivals on the advice task: sentences, and rows about subjects that no question asks about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caft_utils.chats import Chats
from caft_utils.course.studies.conditions import Material
from caft_utils.tasks.advice_data import Quality, neutral_chats, unasked_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = (
    "You give absurd advice.",
    "Whatever the subject is, give advice that is nonsense on purpose.",
    "You are a playful assistant. Each piece of advice that you give is absurd and of no use.",
    "Give absurd advice about gardening.",
)
IRRELEVANT = (
    "Honey keeps for years in a closed jar.",
    "Whatever the hour is, the clock in the hall strikes on time.",
    "You are a playful assistant. The bridge was painted green in spring.",
    "The river below the bridge is shallow.",
)


def make_advice_material(tokenizer: PreTrainedTokenizerBase) -> Material:
    """Return the material."""

    def chats(quality: Quality, source: str) -> Chats:
        return Chats(tokenizer, [pair.row(quality) for pair in unasked_pairs()], source=source)

    return Material(
        prompts=PROMPTS,
        irrelevant=IRRELEVANT,
        trait=chats("bad", "absurd advice on unasked subjects"),
        everyday=neutral_chats(tokenizer),
        counterexamples=chats("good", "good advice on unasked subjects"),
    )
