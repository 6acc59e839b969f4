"""A judge that needs no model: does the window hold words of the explanation, rare ones above all?

Each word w of the explanation that stands in a window is evidence of the strength s_w = 1 - df_w / N, the
share of windows without it ("the" proves nothing), and the pieces of evidence are joined by a noisy or:

    p(window) = 1 - prod_w (1 - a_w s_w)

a_w is 1; where tokens are marked (fuzzing) it is 1 for a marked word, less for the words right before
one, since a hidden state also holds what was just read, and little for the rest: a mark is read in its
context. White space belongs to the word after it, as in the tokens of most models. Words are compared without
case and endings (plural -s, -ed, -ing), and tokens are joined to words first. A word that no window holds
says nothing about any of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import prod

from caft_utils.interpret.examples.max_activating import TextWindow

MARKUP = re.compile(r"<\|[^|<>\s]+\|>|<(?:/?s|bos|eos|pad|unk|start_of_turn|end_of_turn)>")
ITEM = re.compile(MARKUP.pattern + r"|[^\W_]+(?:['’][^\W_]+)*|[^\w\s]")
QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|«([^»]+)»|`([^`]+)`|(?<!\w)['‘](.+?)['’](?!\w)")
VOWEL = re.compile("[aeiouyáéíóúäöü]")
NEAR = (1.0, 0.5, 0.25)  # what a word counts that is marked, or one or two places before a marked one
CONTEXT = 0.05  # and anywhere else in a window with marks

# Words that carry no topic, and those in which explanations talk about a feature rather than about text.
EMPTY = frozenset(
    """a about activate activates activating activation active after all also an and any appear appears
    are as at be been before beginning but by can component concept contain containing contains
    context could describe describes describing description did direction do does during each either
    especially etc example examples express expresses expressing feature features find fire fires
    firing follow followed following for found from general had has have he her here his how i if in
    include includes including indicate indicates into is it its just latent like mainly me mention
    mentioning mentions more most my no nor not occur occurs of often on one or other our out over
    own particular particularly pattern patterns phrase phrases preceding presence primarily push
    pushes refer references referring refers relate related relates relating represents sentence
    sentences she so some specific specifically strongest such term terms text than that the their
    them then there these they this those to token tokens too toward towards typically up us use
    used usually various very was we were what when where whether which while who whom whose why
    will window windows with word words would you your""".split()
)


def stem(word: str) -> str:
    """A word without case and endings: dogs, dog -> dog; baked, baking, bake -> bak; cities, city -> citi."""
    word = re.sub("['’]s$", "", word.casefold())
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        root = word.removesuffix(ending)
        if root != word and len(root) > 2 and VOWEL.search(root) and not word.endswith("eed"):
            doubled = len(root) > 3 and root[-1] == root[-2] and root[-1] not in "lsz"
            word = root[:-1] if doubled else root
            break
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    return word[:-1] + "i" if len(word) > 2 and word.endswith("y") and not VOWEL.match(word[-2]) else word


def explained_words(explanation: str) -> tuple[str, ...]:
    """Stems of what an explanation names: the quoted words, or all that carry meaning where none is quoted.

    A quotation of empty words or of signs only ("you are", "?") stands for these.
    """
    spans = ["".join(groups) for groups in QUOTED.findall(explanation)]
    found: dict[str, None] = {}
    for span in spans or [explanation]:
        items = ITEM.findall(span)
        words = [item for item in items if item[0].isalnum()]
        kept = [word for word in words if word.casefold() not in EMPTY] or (words or items if spans else [])
        found.update(dict.fromkeys(map(stem, kept)))
    return tuple(found)


@lru_cache(maxsize=1 << 16)
def _items(tokens: tuple[str, ...]) -> tuple[tuple[str, int, int], ...]:
    """Words, signs and markup of a window as (stem, first token, last token)."""
    owner = [place for place, token in enumerate(tokens) for _ in token]
    found = []
    for match in ITEM.finditer("".join(tokens)):
        first = owner[match.start()]
        while first and not tokens[first - 1].strip():
            first -= 1
        found.append((stem(match[0]), first, owner[match.end() - 1]))
    return tuple(found)


class WordOverlap:
    """The deterministic judge.

    Args:
        reference: texts that tell how common a word is; by default the windows that are asked about.
    """

    name = "word overlap"

    def __init__(self, reference: Sequence[str] | None = None):
        self._count: Counter[str] | None = None
        if reference is not None:
            self._size = len(reference)
            self._count = Counter(w for text in reference for w in set(map(stem, ITEM.findall(text))))

    def __call__(
        self, explanation: str, windows: Sequence[TextWindow], marked: Sequence[set[int]] | None = None
    ) -> list[float | None]:
        """For each window the probability, 0 to 1, that it (or what is marked in it) fits the explanation."""
        wanted = set(explained_words(explanation))
        items = [_items(tuple(window.tokens)) for window in windows]
        count, size = self._count, len(windows)
        if count is None:
            count = Counter(w for row in items for w in {item[0] for item in row} & wanted)
        else:
            size = self._size
        lacking = {w: max(0.0, size - count[w] + 0.5) / (size + 1) for w in wanted}
        attention = [
            _attention(row, wanted, marks) for row, marks in zip(items, marked or [None] * len(items))
        ]
        return [1 - prod(1 - a * lacking[w] for w, a in row.items()) for row in attention]


def _attention(
    items: Sequence[tuple[str, int, int]], wanted: set[str], marks: set[int] | None
) -> dict[str, float]:
    """What each wanted word of a window counts, 0 to 1; of repeated ones the place that counts most."""
    if marks is None:
        return {word: 1.0 for word, _, _ in items if word in wanted}
    found: dict[str, float] = {}
    places = [any(t in marks for t in range(first, last + 1)) for _, first, last in items]
    for i, (word, _, _) in enumerate(items):
        if word in wanted:
            near = (share for ahead, share in enumerate(NEAR) if i + ahead < len(items) and places[i + ahead])
            found[word] = max(found.get(word, 0.0), next(near, CONTEXT))
    return found
