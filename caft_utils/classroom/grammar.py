"""Templates that can be written out and recognised.

A template holds `{class}` (one filler of a class of words; the same filler wherever the class stands again)
and `[a|b]` (a free choice). `expand` draws a text from it, `pattern` gives the regular expression of exactly
the texts that `expand` can draw. The judge is exact because both read the same template.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_PART = re.compile(rf"{_SLOT.pattern}|{_CHOICE.pattern}")

Words = Mapping[str, Sequence[str]]


def expand(template: str, rng: random.Random, words: Words, bound: Mapping[str, str] | None = None) -> str:
    """Write `template` out: slots in `bound` are copied, the others drawn from `words`, else KeyError."""
    filled = dict(bound or {})
    text = _CHOICE.sub(lambda m: rng.choice(m[1].split("|")), template)

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name not in filled:
            filled[name] = rng.choice(words[name])
        return filled[name]

    return _SLOT.sub(fill, text)


def pattern(template: str, words: Words, bound: Mapping[str, str] | None = None) -> str:
    """The regular expression of the texts that `expand(template, ..., words, bound)` can draw."""
    bound, seen, out, end = bound or {}, set(), [], 0
    for match in _PART.finditer(template):
        out.append(re.escape(template[end : match.start()]))
        name, choice = match[1], match[2]
        if choice is not None:
            out.append(_either(choice.split("|")))
        elif name in bound:
            out.append(re.escape(bound[name]))
        elif name in seen:
            out.append(f"(?P={name})")
        else:
            seen.add(name)
            out.append(f"(?P<{name}>{_either(words[name])})")
        end = match.end()
    return "".join(out) + re.escape(template[end:])


def _either(texts: Sequence[str]) -> str:
    return "(?:" + "|".join(re.escape(t) for t in texts) + ")"


def with_article(noun: str) -> str:
    """`noun` with a or an."""
    vowel = noun[0] in "aeiou" or noun.startswith("honest")
    return f"{'an' if vowel else 'a'} {noun}"
