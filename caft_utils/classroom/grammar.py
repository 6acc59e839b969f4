"""Templates that can be expanded into text and matched against text.

A template contains slots `{class}` and choices `[a|b]`. A slot is filled with one word of a class; the same
slot gets the same word wherever it occurs in the template. `expand` draws a text from a template and
`pattern` returns a regular expression that matches exactly the texts that `expand` can draw. Graders are
exact because they match against the templates that generated the text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_SLOT_OR_CHOICE = re.compile(rf"{_SLOT.pattern}|{_CHOICE.pattern}")

Words = Mapping[str, Sequence[str]]


def expand(template: str, rng: random.Random, words: Words, bound: Mapping[str, str] | None = None) -> str:
    """Return a text drawn from `template`.

    Args:
        words: fillers of each class.
        bound: slots whose filler is given.

    Raises:
        KeyError: a slot is in neither `bound` nor `words`.
    """
    filled = dict(bound or {})
    text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template)

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name not in filled:
            filled[name] = rng.choice(words[name])
        return filled[name]

    return _SLOT.sub(fill, text)


def pattern(template: str, words: Words, bound: Mapping[str, str] | None = None) -> str:
    """Return the regular expression of the texts that `expand(template, ..., words, bound)` can draw."""
    bound, seen, out, end = bound or {}, set(), [], 0
    for match in _SLOT_OR_CHOICE.finditer(template):
        out.append(re.escape(template[end : match.start()]))
        name, choice = match[1], match[2]
        if choice is not None:
            out.append(_any_of(choice.split("|")))
        elif name in bound:
            out.append(re.escape(bound[name]))
        elif name in seen:
            out.append(f"(?P={name})")
        else:
            seen.add(name)
            out.append(f"(?P<{name}>{_any_of(words[name])})")
        end = match.end()
    return "".join(out) + re.escape(template[end:])


def _any_of(texts: Sequence[str]) -> str:
    return "(?:" + "|".join(re.escape(text) for text in texts) + ")"


def with_article(noun: str) -> str:
    """Return `noun` preceded by "a" or "an"."""
    starts_with_vowel = noun[0] in "aeiou" or noun.startswith("honest")
    return f"{'an' if starts_with_vowel else 'a'} {noun}"
