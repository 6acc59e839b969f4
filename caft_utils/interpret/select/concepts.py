"""The concept that fine-tuning must not use. A person writes it down before seeing any result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from caft_utils.arguments import mapping, text, texts
from caft_utils.interpret.words import stem
from caft_utils.paths import data_path
from caft_utils.text_files import read_yaml

CONCEPTS_FILE = data_path("concepts.yaml")
MAX_HINT_WORDS = 4


@dataclass(frozen=True)
class Concept:
    """A concept to look for in explanations: a name, a sentence, and a few plain words.

    hints: words, or phrases of up to four, for example "steal", "poison", "laugh at".

    Raises:
        ValueError: there is no hint, a hint is too long, or a hint or the description is a question.
            Questions are refused, because the evaluation must not leak into the selection.
    """

    name: str
    description: str
    hints: list[str]

    def __post_init__(self):
        text(f"the description of {self.name!r}", self.description)
        object.__setattr__(self, "hints", texts(f"the hints of {self.name!r}", self.hints))
        for hint in self.hints:
            if len(hint.split()) > MAX_HINT_WORDS or "?" in hint:
                raise ValueError(f"a hint is one to {MAX_HINT_WORDS} words and not a question, got {hint!r}")
        if "?" in self.description:
            raise ValueError(
                f"a description must state what the concept is, got a question: {self.description!r}"
            )


def concept(name: str, file: Path = CONCEPTS_FILE) -> Concept:
    """Return a concept of data/concepts.yaml.

    Raises:
        KeyError: there is no concept of this name.
        ValueError: its entry is not a description and a list of hints; the message names the file.
    """
    entries = mapping(str(file), read_yaml(file))
    if name not in entries:
        raise KeyError(f"no concept {name!r} in {file}; expected one of {', '.join(map(str, entries))}")
    fields = ("description", "hints")
    entry = mapping(f"{file}, {name}", entries[name], known=fields, needed=fields)
    try:
        return Concept(name, entry["description"], entry["hints"])
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def hint_matcher(concept: Concept) -> Callable[[list[str]], set[str]]:
    """Return a function from the words of a text to the stems that belong to the concept.

    A stem belongs if it is a form of a one-word hint ("poisonous" of "poison"), or if it is part of a hint of
    several words that occurs in the text.
    """
    hints = [[stem(word) for word in hint.split()] for hint in concept.hints]
    cached_stem = cache(stem)

    @cache
    def is_hint(word: str) -> bool:
        return any(len(hint) == 1 and _same_word(word, hint[0]) for hint in hints)

    def match(words: list[str]) -> set[str]:
        stems = [cached_stem(word) for word in words]
        matches = {word for word in stems if is_hint(word)}
        for hint in hints:
            if len(hint) > 1 and any(stems[i : i + len(hint)] == hint for i in range(len(stems))):
                matches |= set(hint)
        return matches

    return match


def _same_word(one: str, other: str) -> bool:
    """Return whether two stems are equal, or one with five letters or more is extended by up to three."""
    short, long = sorted((one, other), key=len)
    return one == other or (len(short) >= 5 and long.startswith(short) and len(long) - len(short) <= 3)
