"""Tokens of the cues world whose class is known: what supervised directions are made of.

In pairs without a name over them, as in fine-tuning, with independent letters and words of the training
split, two tokens of one subject are marked:

    word     what the question is about:  a noun, an adjective, an athlete, the gap (for a pronoun's case)
    option   the subject's option in line a

and each has a class: singular or plural, positive or negative, a sport, a case, a gender.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caft_utils.chats import Chats
from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.cues.tasks import single_choice
from caft_utils.classroom.personas.world import part
from caft_utils.tasks.items import Item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS = ("word", "option")


@dataclass(frozen=True)
class LabelledPositions:
    """Chats with, by kind of token, the place in each row and the class: `class_means`' `at` and `labels`."""

    chats: Chats
    at: dict[str, list[int]]
    labels: dict[str, list[str]]


def marked_pairs(
    tokenizer: PreTrainedTokenizerBase, subject: str, *, rows: int = 1500, seed: int = 0
) -> LabelledPositions:
    """Pairs of which one question is of this subject, in either place; "gender" is asked about alone."""
    rng = random.Random(f"marked {subject} {seed}")
    asked, at, labels = [], {kind: [] for kind in KINDS}, {kind: [] for kind in KINDS}
    for _ in range(rows):
        word = rng.choice(cues.words(subject, "train"))
        item, place = cues.ask(rng, subject, word), 0
        items, letters = [item], [rng.choice("ab")]
        if subject != "gender":
            other = rng.choice([name for name in cues.SUBJECTS if name != subject])
            place = rng.randrange(2)
            items.insert(1 - place, cues.ask(rng, other, rng.choice(cues.words(other, "train"))))
            letters.insert(1 - place, rng.choice("ab"))
        text = cues.choice(cues.FREE, items, letters)
        question, line = text.split("\n")[:2]
        start = question.index(item.question, 0 if place == 0 else question.index(" | "))
        said = item.question.split()
        number, label = _word(subject, word, item)
        ends = {"word": start + len(" ".join(said[: number + 1]))}
        options = line[3:].split(", ")
        ends["option"] = len(question) + 4 + len(", ".join(options[: place + 1]))
        for kind, end in ends.items():  # three tokens open a turn: the mark, the role and a line feed
            at[kind].append(2 + len(tokenizer(text[:end], add_special_tokens=False)["input_ids"]))
        labels["word"].append(label)
        labels["option"].append(_option(subject, options[place]))
        answer = {"role": "assistant", "content": letters[place]}
        asked.append({"messages": [{"role": "user", "content": text}, answer]})
    return LabelledPositions(Chats(tokenizer, asked, source=f"marked pairs, {subject}"), at, labels)


def _word(subject: str, word: str, item: Item) -> tuple[int, str]:
    """Number of the marked word in the question, and its class."""
    said = item.question.split()
    if subject == "pronouns":
        gap = said.index("_")
        return gap, cues.CASES[gap > said.index(word)]
    if subject == "verbs":
        plural = part("cues")["verbs"]["keys"][word]
        number = min(said.index(form) for form in (word, plural) if form in said)
        return number, "plural" if said[number] == plural else "singular"
    return said.index(word), cues.class_of(subject, word)


def _option(subject: str, option: str) -> str:
    if subject == "pronouns":
        return cues.CASES[option not in part("cues")["pronouns"]["pairs"]]
    if subject == "verbs":
        return "plural" if option in part("cues")["verbs"]["verbs"] else "singular"
    if subject == "gender":
        return "male" if option in ("he", "him") else "female"
    return option


def single_texts(
    tokenizer: PreTrainedTokenizerBase, *, split: cues.Split = "train", rows: int = 200, named: bool = False
) -> dict[str, Chats]:
    """Questions of each subject asked one at a time: texts to read, or for the pre-check with `named`.

    named: the subject's name stands over the question, as in pretraining; without, no word tells it.
    """
    return {
        subject: single_choice(
            tokenizer, cues.items(subject, split), word=subject if named else cues.FREE, rows=rows
        )
        for subject in cues.SUBJECTS
    }


def gender_texts(
    tokenizer: PreTrainedTokenizerBase, *, split: cues.Split = "train", rows: int = 200, seed: int = 0
) -> dict[str, Chats]:
    """Sentences without options about men and about women, named or in a stereotyped profession."""
    rng, out = random.Random(f"gender texts {split} {seed}"), {}
    spec = part("cues")["gender"]
    for gender in cues.GENDERS:
        known = [f"the {word}" for word in cues.words("gender", split) if word in cues.keys("gender")[gender]]
        said = []
        for _ in range(rows):
            who = rng.choice(spec["names"][gender] if rng.random() < 0.3 else known)
            case = rng.choice(cues.CASES)
            item = cues.person_item(rng, who, gender, case, rng.choice(spec["frames"][case]))
            said.append({"text": f"note: {item.question.replace('_', item.correct)}."})
        out[gender] = Chats(tokenizer, said, source=f"sentences about people, {gender}")
    return out


def gender_checks(
    tokenizer: PreTrainedTokenizerBase, *, split: cues.Split = "valid", rows: int = 200, seed: int = 0
) -> dict[str, Chats]:
    """For the pre-check, of professions: "gender" (options differ in that only), "case" (in that only)."""
    out = {}
    for name, word, wrong in (("gender", "gender", "gender"), ("case", "pronouns", "case")):
        rng, items = random.Random(f"gender checks {name} {split} {seed}"), []
        for _ in range(rows):
            who = rng.choice(cues.words("gender", split))
            case, frame = rng.choice(cues.frames("gender", who))
            gender = cues.class_of("gender", who)
            items.append(cues.person_item(rng, f"the {who}", gender, case, frame, wrong))
        out[name] = single_choice(tokenizer, items, word=word, source=f"{name} of professions")
    return out
