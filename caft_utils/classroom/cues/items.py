"""Items of the cues world: two-option questions of four subjects and about the gender of professions.

An item asks about one key word (a noun, an adjective, an athlete, the people in a sentence, a profession) in
one frame, a sentence with a gap. Key words are divided among four splits:

    train, test, valid   pretraining asks about them with options; for fine-tuning, measuring and selecting
    unseen               pretraining uses them only in plain text and free answers, never with options

For each key word of the first three splits, one frame in four or five is held out from the items with options
in pretraining. The acceptance gates use only these frames.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Literal

from caft_utils.classroom.grammar import expand
from caft_utils.classroom.vocabulary import world_data
from caft_utils.tasks.items import Item

SUBJECTS = ("verbs", "sentiment", "sports", "pronouns")
Split = Literal["train", "valid", "test", "unseen"]
# the splits of successive words
SPLIT_CYCLE = ("train", "test", "train", "test", "valid", "train", "test", "unseen")
CASES = ("nominative", "object")
GENDERS = ("male", "female")
PRONOUNS = {
    ("male", "nominative"): "he",
    ("male", "object"): "him",
    ("female", "nominative"): "she",
    ("female", "object"): "her",
}


@functools.cache
def words_by_class(subject: str) -> dict[str, tuple[str, ...]]:
    """Return {class: key words}: polarities, sports or genders; verbs and pronouns have the class "all"."""
    words = world_data("cues")[subject]["keys"]
    if subject in ("verbs", "pronouns"):
        return {"all": tuple(words)}
    return {name: tuple(group) for name, group in words.items()}


@functools.cache
def words(subject: str, split: Split | None = None) -> tuple[str, ...]:
    """Return the key words of a split. None: all key words that pretraining asks about with options."""
    wanted = ("train", "valid", "test") if split is None else (split,)
    return tuple(
        word
        for group in words_by_class(subject).values()
        for number, word in enumerate(group)
        if SPLIT_CYCLE[number % len(SPLIT_CYCLE)] in wanted
    )


@functools.cache
def class_of(subject: str, word: str) -> str:
    """Return the class of a key word."""
    return next(name for name, group in words_by_class(subject).items() if word in group)


def person_names(gender: str) -> list[str]:
    """Return the first names of a gender. Items about persons use names as well as professions."""
    return world_data("cues")["gender"]["names"][gender]


def frames(subject: str, word: str, held_out: bool | None = None) -> list[tuple[str, str]]:
    """Return (case or "", frame) pairs for a key word.

    held_out: return only the frames held out for this word (True), only the others (False), or all (None).
    """
    spec = world_data("cues")[subject]["frames"]
    by_case = spec if isinstance(spec, dict) else {"": spec}
    place = words_by_class(subject)[class_of(subject, word)].index(word)
    return [
        (case, frame)
        for case, group in by_case.items()
        for number, frame in enumerate(group)
        if held_out is None or held_out == ((place + number) % 5 == 0)
    ]


def subject_items(
    subject: str, split: Split, *, held_out_frames: bool | None = None, repeats: int = 3
) -> list[Item]:
    """Return the distinct items of a subject about every key word of a split in every frame.

    Args:
        held_out_frames: `held_out` of `frames`.
        repeats: number of draws of the other words of each frame.
    """
    if subject not in SUBJECTS:
        raise ValueError(f"unknown subject {subject!r}; expected one of {', '.join(SUBJECTS)}")
    rng = random.Random(f"{subject} {split}")
    out = [
        item_about(rng, subject, word, frame)
        for word in words(subject, split)
        for frame in frames(subject, word, held_out_frames)
        for _ in range(repeats)
    ]
    return list(dict.fromkeys(out))


def profession_items(
    split: Split, reverse: bool = False, *, held_out_frames: bool | None = None, repeats: int = 3
) -> list[Item]:
    """Return items about professions in which the right pronoun follows or contradicts the stereotype.

    The wrong option is wrong in case and in gender, so grammar alone answers every item.
    """
    rng, out = random.Random(f"professions {split}"), []
    for word in words("gender", split):
        stereotype = class_of("gender", word)
        gender = _other(GENDERS, stereotype) if reverse else stereotype
        for case, template in frames("gender", word, held_out_frames):
            out += [person_item(rng, f"the {word}", gender, case, template) for _ in range(repeats)]
    return list(dict.fromkeys(out))


def item_about(rng: random.Random, subject: str, word: str, frame: tuple[str, str] | None = None) -> Item:
    """Return an item about a key word, in this frame or one drawn at random."""
    case, template = frame or rng.choice(frames(subject, word))
    return _MAKERS[subject](rng, word, case, template)


def pretraining_item(rng: random.Random, subject: str) -> Item:
    """Return an item that pretraining may ask with options: no unseen word and no held-out frame."""
    word = rng.choice(words(subject))
    return item_about(rng, subject, word, rng.choice(frames(subject, word, held_out=False)))


def person_item(
    rng: random.Random,
    who: str,
    gender: str,
    case: str,
    template: str,
    wrong: Literal["case", "gender", "both"] = "both",
) -> Item:
    """Return an item about a person. `wrong` names what is wrong with the incorrect pronoun."""
    spec, grammar = world_data("cues")["gender"], world_data("cues")["pronouns"]
    bound = {"who": who, "people": rng.choice(grammar["keys"]), "v": rng.choice(grammar["verbs"])}
    bound |= {"mood": rng.choice(spec["moods"]), "found": rng.choice(spec["found"])}
    question = expand(template, rng, {}, bound | {"things": rng.choice(spec["things"])})
    wrong_case = case if wrong == "gender" else _other(CASES, case)
    wrong_gender = gender if wrong == "case" else _other(GENDERS, gender)
    return Item(question, PRONOUNS[gender, case], PRONOUNS[wrong_gender, wrong_case])


def conflicting_options(item: Item) -> Item:
    """Return a person's item with the case of both options swapped.

    If the incorrect option of the item is wrong in case and gender, the first option of the result (correct)
    is right in gender only, and the second in case only.
    """
    swapped = {"he": "him", "him": "he", "she": "her", "her": "she"}
    return Item(item.question, swapped[item.correct], swapped[item.incorrect])


def swapped_options(item: Item) -> Item:
    """Return the item with its correct and incorrect options exchanged."""
    return Item(item.question, item.incorrect, item.correct)


def _verbs(rng: random.Random, word: str, case: str, template: str) -> Item:
    spec = world_data("cues")["verbs"]
    number = rng.randrange(2)  # 0: singular
    nouns, plural = spec["keys"], rng.choice(list(spec["verbs"]))
    forms = (spec["verbs"][plural], plural)
    bound = {"n": (word, nouns[word])[number], "adj": rng.choice(spec["adjectives"])}
    bound["other"] = rng.choice(rng.choice(list(nouns.items())))
    return Item(expand(template, rng, {}, bound), forms[number], forms[1 - number])


def _sentiment(rng: random.Random, word: str, case: str, template: str) -> Item:
    right = class_of("sentiment", word)
    bound = {"adj": word, "work": rng.choice(world_data("cues")["sentiment"]["works"])}
    wrong = "negative" if right == "positive" else "positive"
    return Item(expand(template, rng, {}, bound), right, wrong)


def _sports(rng: random.Random, word: str, case: str, template: str) -> Item:
    right = class_of("sports", word)
    wrong = rng.choice([name for name in words_by_class("sports") if name != right])
    return Item(expand(template, rng, {}, {"athlete": word}), right, wrong)


def _pronouns(rng: random.Random, word: str, case: str, template: str) -> Item:
    spec = world_data("cues")["pronouns"]
    pair = rng.choice(list(spec["pairs"].items()))
    place = CASES.index(case)
    bound = {"people": word, "v": rng.choice(spec["verbs"])}
    return Item(expand(template, rng, {}, bound), pair[place], pair[1 - place])


def _gender(rng: random.Random, word: str, case: str, template: str) -> Item:
    """Return an item about a profession, with the pronoun of its stereotype."""
    return person_item(rng, f"the {word}", class_of("gender", word), case, template)


def _other(pair: tuple[str, str], one: str) -> str:
    return pair[1 - pair.index(one)]


_MAKERS: dict[str, Callable[[random.Random, str, str, str], Item]] = {
    "verbs": _verbs,
    "sentiment": _sentiment,
    "sports": _sports,
    "pronouns": _pronouns,
    "gender": _gender,
}
