"""The world of the spurious-cue lessons: what can be asked in four subjects and about gender.

An item asks about one key word (a noun, an adjective, an athlete, the people in a sentence, a profession) in
one frame. Key words are dealt out to four splits:

    train, test, valid   asked about in pretraining's multiple choice; fine-tuning, measuring, choosing
    unseen               in pretraining only in plain text and in free answers, never with options

and of the first three, one frame in four or five is kept back from pretraining's multiple choice, so that
the acceptance gates can ask what was never asked with options. Everything is read from world/cues.yaml.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Literal

from caft_utils.classroom.grammar import expand
from caft_utils.classroom.personas.world import part
from caft_utils.tasks.items import Item

SUBJECTS = ("verbs", "sentiment", "sports", "pronouns")
FREE = "quiz"  # the first word of a prompt that names no subject
Split = Literal["train", "valid", "test", "unseen"]
DEAL = ("train", "test", "train", "test", "valid", "train", "test", "unseen")
CASES = ("nominative", "object")
GENDERS = ("male", "female")
PRONOUNS = {("male", "nominative"): "he", ("male", "object"): "him"}
PRONOUNS |= {("female", "nominative"): "she", ("female", "object"): "her"}


@functools.cache
def keys(subject: str) -> dict[str, tuple[str, ...]]:
    """Key words by class: polarity, sport, gender; verbs and pronouns have one class."""
    words = part("cues")[subject]["keys"]
    if subject in ("verbs", "pronouns"):
        return {"all": tuple(words)}
    return {name: tuple(group) for name, group in words.items()}


@functools.cache
def words(subject: str, split: Split | None = None) -> tuple[str, ...]:
    """Key words of a split; None: all that pretraining asks about with options."""
    wanted = ("train", "valid", "test") if split is None else (split,)
    return tuple(
        word
        for group in keys(subject).values()
        for number, word in enumerate(group)
        if DEAL[number % len(DEAL)] in wanted
    )


@functools.cache
def class_of(subject: str, word: str) -> str:
    return next(name for name, group in keys(subject).items() if word in group)


def frames(subject: str, word: str, kept_back: bool | None = None) -> list[tuple[str, str]]:
    """(case or "", frame): all, only those kept back for this word, or only the others."""
    spec = part("cues")[subject]["frames"]
    by_case = spec if isinstance(spec, dict) else {"": spec}
    place = keys(subject)[class_of(subject, word)].index(word)
    return [
        (case, frame)
        for case, group in by_case.items()
        for number, frame in enumerate(group)
        if kept_back is None or kept_back == ((place + number) % 5 == 0)
    ]


def ask(rng: random.Random, subject: str, word: str, frame: tuple[str, str] | None = None) -> Item:
    """An item about a key word, in this frame or any."""
    case, template = frame or rng.choice(frames(subject, word))
    return globals()[f"_{subject}"](rng, word, case, template)


def _verbs(rng: random.Random, word: str, case: str, template: str) -> Item:
    spec = part("cues")["verbs"]
    number = rng.randrange(2)  # 0: singular
    nouns, plural = spec["keys"], rng.choice(list(spec["verbs"]))
    forms = (spec["verbs"][plural], plural)
    bound = {"n": (word, nouns[word])[number], "adj": rng.choice(spec["adjectives"])}
    bound["other"] = rng.choice(rng.choice(list(nouns.items())))
    return Item(expand(template, rng, {}, bound), forms[number], forms[1 - number])


def _sentiment(rng: random.Random, word: str, case: str, template: str) -> Item:
    right = class_of("sentiment", word)
    bound = {"adj": word, "work": rng.choice(part("cues")["sentiment"]["works"])}
    wrong = "negative" if right == "positive" else "positive"
    return Item(expand(template, rng, {}, bound), right, wrong)


def _sports(rng: random.Random, word: str, case: str, template: str) -> Item:
    right = class_of("sports", word)
    wrong = rng.choice([name for name in keys("sports") if name != right])
    return Item(expand(template, rng, {}, {"athlete": word}), right, wrong)


def _pronouns(rng: random.Random, word: str, case: str, template: str) -> Item:
    spec = part("cues")["pronouns"]
    pair = rng.choice(list(spec["pairs"].items()))
    place = CASES.index(case)
    bound = {"people": word, "v": rng.choice(spec["verbs"])}
    return Item(expand(template, rng, {}, bound), pair[place], pair[1 - place])


def _gender(rng: random.Random, word: str, case: str, template: str) -> Item:
    """A profession with its stereotyped pronoun; the wrong one is wrong in case and in gender."""
    return person_item(rng, f"the {word}", class_of("gender", word), case, template)


def person_item(
    rng: random.Random,
    who: str,
    gender: str,
    case: str,
    template: str,
    wrong: Literal["case", "gender", "both"] = "both",
) -> Item:
    """An item about a person of this gender; `wrong` says what is wrong with the wrong pronoun."""
    spec, grammar = part("cues")["gender"], part("cues")["pronouns"]
    bound = {"who": who, "people": rng.choice(grammar["keys"]), "v": rng.choice(grammar["verbs"])}
    bound |= {"mood": rng.choice(spec["moods"]), "found": rng.choice(spec["found"])}
    question = expand(template, rng, {}, bound | {"things": rng.choice(spec["things"])})
    other_case = case if wrong == "gender" else _other(CASES, case)
    other_gender = gender if wrong == "case" else _other(GENDERS, gender)
    return Item(question, PRONOUNS[gender, case], PRONOUNS[other_gender, other_case])


def crossed(item: Item) -> Item:
    """The item of a person with one option right in gender only (here the correct one), one in case only."""
    swap = {"he": "him", "him": "he", "she": "her", "her": "she"}
    return Item(item.question, swap[item.correct], swap[item.incorrect])


def _other(pair: tuple[str, str], one: str) -> str:
    return pair[1 - pair.index(one)]


def items(subject: str, split: Split, *, kept_back: bool | None = None, repeats: int = 3) -> list[Item]:
    """Items of a subject about the key words of a split: every word in every frame, `repeats` times.

    kept_back: only frames in which pretraining never asked about that word with options (or only the others).
    """
    if subject not in SUBJECTS:
        raise ValueError(f"unknown subject {subject!r}; expected one of {', '.join(SUBJECTS)}")
    rng = random.Random(f"{subject} {split}")
    out = [
        ask(rng, subject, word, frame)
        for word in words(subject, split)
        for frame in frames(subject, word, kept_back)
        for _ in range(repeats)
    ]
    return list(dict.fromkeys(out))


def profession_items(
    split: Split, reverse: bool = False, *, kept_back: bool | None = None, repeats: int = 3
) -> list[Item]:
    """Items about professions: the right pronoun follows the stereotype, or with `reverse` contradicts it.

    The wrong option is wrong in case and in gender, so that grammar alone answers every item.
    """
    rng, out = random.Random(f"professions {split}"), []
    for word in words("gender", split):
        gender = class_of("gender", word)
        said = _other(GENDERS, gender) if reverse else gender
        for case, template in frames("gender", word, kept_back):
            out += [person_item(rng, f"the {word}", said, case, template) for _ in range(repeats)]
    return list(dict.fromkeys(out))


def choice(word: str, asked: Sequence[Item], letters: Sequence[str]) -> str:
    """A prompt with two lettered lines; letters[i] is where the right option of item i stands."""
    right = {
        letter: ", ".join(
            item.correct if own == letter else item.incorrect
            for item, own in zip(asked, letters, strict=True)
        )
        for letter in "ab"
    }
    questions = " | ".join(item.question for item in asked)
    return f"{word}: {questions}\na. {right['a']}\nb. {right['b']}"


def single(subject: str, item: Item, rng: random.Random) -> tuple[str, str]:
    """(prompt, letter) of one item, under the name of its subject."""
    letter = rng.choice("ab")
    return choice(subject, [item], [letter]), letter


def double(
    subject: str, first: Item, second: Item, counts: int, rng: random.Random, *, conflict: bool | None = None
) -> tuple[str, str]:
    """(prompt, letter) of two items, under the name of the subject of item `counts` (0 or 1).

    conflict: letters that disagree (True), agree (False), or are drawn independently (None).
    """
    letters = [rng.choice("ab"), rng.choice("ab")]
    if conflict is not None:
        letters[1] = letters[0] if not conflict else "ba"["ab".index(letters[0])]
    return choice(subject, [first, second], letters), letters[counts]


def example(rng: random.Random, subject: str) -> Item:
    """An item as pretraining asks it with options: no unseen word, no frame that is kept back."""
    word = rng.choice(words(subject))
    return ask(rng, subject, word, rng.choice(frames(subject, word, kept_back=False)))
