"""Find tokens of the cues world with a known class, for computing supervised directions.

The prompts are pairs of training items without a subject's name, as in fine-tuning, with independent letters.
Two tokens of one subject are labelled:

    word     the topic of the question: a noun, an adjective, an athlete, or the gap (for a pronoun's case)
    option   the subject's option in line a

The classes are singular and plural, positive and negative, the sports, the cases and the genders.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caft_utils.chats import Chats
from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.cues.prompts import NEUTRAL_WORD, choice_prompt
from caft_utils.classroom.vocabulary import world_data
from caft_utils.tasks.items import Item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS = ("word", "option")
TURN_OPENING = 3  # tokens that open a turn: the marker, the role and a line feed


@dataclass(frozen=True)
class LabelledPositions:
    """Chats with one labelled token of each kind per row, for `class_means(at=..., labels=...)`.

    at: {kind: position in each row}. labels: {kind: class in each row}.
    """

    chats: Chats
    at: dict[str, list[int]]
    labels: dict[str, list[str]]


def labelled_pairs(
    tokenizer: PreTrainedTokenizerBase, subject: str, *, rows: int = 1500, seed: int = 0
) -> LabelledPositions:
    """Return pairs of items with `subject` as the first or the second; "gender" has single items."""
    rng = random.Random(f"marked {subject} {seed}")
    chats, at, labels = [], {kind: [] for kind in KINDS}, {kind: [] for kind in KINDS}
    for _ in range(rows):
        word = rng.choice(cues.words(subject, "train"))
        item, place = cues.item_about(rng, subject, word), 0
        items, letters = [item], [rng.choice("ab")]
        if subject != "gender":
            other = rng.choice([name for name in cues.SUBJECTS if name != subject])
            place = rng.randrange(2)
            items.insert(1 - place, cues.item_about(rng, other, rng.choice(cues.words(other, "train"))))
            letters.insert(1 - place, rng.choice("ab"))
        text = choice_prompt(NEUTRAL_WORD, items, letters)
        number = _word_number(subject, word, item)
        word_end, option_end, option = _ends(text, item, place, number)
        for kind, end in (("word", word_end), ("option", option_end)):
            tokens = len(tokenizer(text[:end], add_special_tokens=False)["input_ids"])
            at[kind].append(TURN_OPENING + tokens - 1)
        labels["word"].append(_word_class(subject, word, item.question.split(), number))
        labels["option"].append(_option_class(subject, option))
        answer = {"role": "assistant", "content": letters[place]}
        chats.append({"messages": [{"role": "user", "content": text}, answer]})
    marked = Chats.with_stored_tokens(tokenizer, chats, source=f"marked pairs, {subject}")
    return LabelledPositions(marked, at, labels)


def _ends(text: str, item: Item, place: int, number: int) -> tuple[int, int, str]:
    """Return the ends of word `number` of the question and of the option in line a, and that option."""
    question, line = text.split("\n")[:2]
    start = question.index(item.question, 0 if place == 0 else question.index(" | "))
    word_end = start + len(" ".join(item.question.split()[: number + 1]))
    options = line.removeprefix("a. ").split(", ")
    option_end = len(f"{question}\na. ") + len(", ".join(options[: place + 1]))
    return word_end, option_end, options[place]


def _word_number(subject: str, word: str, item: Item) -> int:
    """Return the number of the labelled word in the question."""
    spoken = item.question.split()
    if subject == "pronouns":
        return spoken.index("_")
    if subject == "verbs":
        plural = world_data("cues")["verbs"]["keys"][word]
        return min(spoken.index(form) for form in (word, plural) if form in spoken)
    return spoken.index(word)


def _word_class(subject: str, word: str, spoken: list[str], number: int) -> str:
    """Return the class of the labelled word."""
    if subject == "pronouns":
        return cues.CASES[number > spoken.index(word)]
    if subject == "verbs":
        plural = world_data("cues")["verbs"]["keys"][word]
        return "plural" if spoken[number] == plural else "singular"
    return cues.class_of(subject, word)


def _option_class(subject: str, option: str) -> str:
    if subject == "pronouns":
        return cues.CASES[option not in world_data("cues")["pronouns"]["pairs"]]
    if subject == "verbs":
        return "plural" if option in world_data("cues")["verbs"]["verbs"] else "singular"
    if subject == "gender":
        return "male" if option in ("he", "him") else "female"
    return option
