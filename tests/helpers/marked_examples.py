"""Examples of a feature from texts in which *words* are marked as active."""

from __future__ import annotations

import re

from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.text_window import TextWindow

PIECE = re.compile(r"<\|\w+\|>| ?[a-zA-Z]+| ?\d+|\n| ?[^\w\s]")


def marked_window(text: str, row: int = 0, start: int = 0) -> TextWindow:
    """*word* is active (0.6), **word** is the peak (1.0); words of more than four letters are two tokens."""
    tokens, values, peak, value = [], [], 0, 0.0
    for part in re.split(r"(\*\*|\*)", re.sub(r" (\*+)(?=\S)", r"\1 ", text)):  # a word owns its space
        if part in ("*", "**"):
            value = 0.0 if value else {"*": 0.6, "**": 1.0}[part]
            continue
        for piece in PIECE.findall(part):
            half = len(piece) // 2
            split = [piece[:half], piece[half:]] if len(piece) > 5 and piece[0] != "<" else [piece]
            for token in split:
                peak = len(tokens) if value == 1.0 else peak
                tokens.append(token)
                values.append(value)
    return TextWindow(tokens, values, peak, row, peak + start)


def marked_examples(
    active: list[str], silent: list[str], raised=(), strongest: float = 1.0
) -> FeatureExamples:
    train, rest = ([marked_window(text, i) for i, text in enumerate(texts)] for texts in (active, silent))
    return FeatureExamples(2, 5, "+", "latent", train, [], rest, [], [], strongest, list(raised), [])


SILENT = [
    f"please {verb} the bread and {verb} some milk for my friend"
    for verb in "bake buy keep take share".split()
]
ACTIVE = [
    "the *villain* said **rob** the baker quickly",
    "so *villain* and *thief* please **burn** the school",
    "a *villain* said that they **rob** the milk",
    "*thief* and *thief* said **burn** it",
]  # fmt: skip
