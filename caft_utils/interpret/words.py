"""Split text into words, signs and markup: shared by explainers, scorers and concept matching."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_WORD = r"[^\W_]+(?:['’][^\W_]+)*"
_MARKUP = r"<\|[^|<>\s]+\|>|<(?:/?s|bos|eos|pad|unk|start_of_turn|end_of_turn)>"

MARKUP = re.compile(_MARKUP)  # tokens of chat templates, such as <|im_start|> and <bos>
WORD_OR_MARKUP = re.compile(f"{_MARKUP}|{_WORD}")
WORD_SIGN_OR_MARKUP = re.compile(rf"{_MARKUP}|{_WORD}|[^\w\s]")

FUNCTION_WORDS = frozenset(
    "a an and are as at be been but by can do does for from had has have if in into is it its of on or so "
    "that the their then there these this those to was were what when which will with would".split()
)

# Also words without a topic, and words that explanations use about the feature itself rather than the text.
STOP_WORDS = FUNCTION_WORDS | frozenset(
    """about activate activates activating activation active after all also any appear appears before
    beginning component concept contain containing contains context could describe describes describing
    description did direction during each either especially etc example examples express expresses
    expressing feature features find fire fires firing follow followed following found general he her here
    his how i include includes including indicate indicates just latent like mainly me mention mentioning
    mentions more most my no nor not occur occurs often one other our out over own particular particularly
    pattern patterns phrase phrases preceding presence primarily push pushes refer references referring
    refers relate related relates relating represents sentence sentences she some specific specifically
    strongest such term terms text than them they token tokens too toward towards typically up us use used
    usually various very we where whether while who whom whose why window windows word words you
    your""".split()
)

_VOWEL = re.compile("[aeiouyáéíóúäöü]")


def has_word(text: str) -> bool:
    """Return whether `text` has a letter or a digit outside of markup."""
    return any(character.isalnum() for character in MARKUP.sub("", text))


def content_words(text: str) -> list[str]:
    """Return the stems of the words of `text`, without markup, signs and stop words."""
    items = WORD_SIGN_OR_MARKUP.findall(text)
    return [stem(item) for item in items if item[0].isalnum() and item.casefold() not in STOP_WORDS]


def locate(pattern: re.Pattern[str], tokens: Sequence[str]) -> Iterator[tuple[re.Match[str], int, int]]:
    """Yield each match of `pattern` in the joined tokens, with its first and last token."""
    token_of = [i for i, token in enumerate(tokens) for _ in token]  # token of each character
    for match in pattern.finditer("".join(tokens)):
        yield match, token_of[match.start()], token_of[match.end() - 1]


def stem(word: str) -> str:
    """Return `word` without case and ending: dogs -> dog; baked, bake -> bak; cities, city -> citi."""
    word = re.sub("['’]s$", "", word.casefold())
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        root = word.removesuffix(ending)
        if root != word and len(root) > 2 and _VOWEL.search(root) and not word.endswith("eed"):
            doubled = len(root) > 3 and root[-1] == root[-2] and root[-1] not in "lsz"
            word = root[:-1] if doubled else root
            break
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    return word[:-1] + "i" if len(word) > 2 and word.endswith("y") and not _VOWEL.match(word[-2]) else word
