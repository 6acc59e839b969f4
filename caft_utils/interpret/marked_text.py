"""Mark the activating tokens of a text window, for explainers and scorers."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import groupby

from caft_utils.interpret.examples import ACTIVE_SHARE
from caft_utils.interpret.examples.text_window import TextWindow


def active_positions(window: TextWindow, max_activation: float) -> set[int]:
    """Return the positions in `window` whose activation exceeds `ACTIVE_SHARE` of `max_activation`."""
    threshold = ACTIVE_SHARE * max_activation
    return {i for i, activation in enumerate(window.activations) if activation > threshold}


def mark_tokens(window: TextWindow, positions: Collection[int]) -> str:
    """Return the text of `window` with << >> around each run of tokens in `positions`.

    White space at either end of a run stays outside the marks.
    """
    parts = []
    for marked, run in groupby(enumerate(window.tokens), key=lambda pair: pair[0] in positions):
        text = "".join(token for _, token in run)
        parts.append(re.sub(r"^(\s*)(.*?)(\s*)$", r"\1<<\2>>\3", text, flags=re.S) if marked else text)
    return "".join(parts)
