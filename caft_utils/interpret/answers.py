"""Find the final answer in the output of a chat model, and the first token of that answer.

A reasoning model writes its thoughts before the answer. Thoughts must not be parsed as the answer, above all
when they are cut off: the last line of an unfinished thought looks like a sentence, and "yes" has some
probability at its first token. All code that parses replies therefore uses this file. It accepts a clear
answer in any form, and returns None for an unclear one.

Thoughts are recognised as <think>...</think> and its variants, [THINK]...[/THINK], the channels of gpt-oss,
and the markers of Gemma, Kimi and Command. If the template already contains the opening marker, only the
closing one is in the reply.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

_NAMES = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis|inner_monologue)"
_LEFT, _RIGHT = r"[<\[\u25c1]\|?\s*", r"\s*\|?[>\]\u25b7]"
_OPENING = re.compile(
    rf"{_LEFT}{_NAMES}\b[^<>\[\]\u25c1\u25b7]{{0,40}}{_RIGHT}|<\|START_THINKING\|>|<\|channel>thought", re.I
)
_CLOSING = re.compile(rf"{_LEFT}/\s*{_NAMES}{_RIGHT}|<\|END_THINKING\|>|<channel\|>", re.I)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>")
_WRAPPER = re.compile(r"</?(?:answer|response|output)>|<\|(?:START|END)_RESPONSE\|>|<\|\w+\|>", re.I)

CUT_OFF = ("length", "max_tokens", "model_length", "max_output_tokens")
BROKEN_OFF = ("error", "content_filter", "safety", "recitation", "cancelled", "abort", "timeout")
MIN_MASS = 0.5  # smallest total probability of the verdicts at which a token decides

Verdict = TypeVar("Verdict")


def final_text(text: str, finish: str | None = None) -> str | None:
    """Return the part of `text` after the thoughts; None if it is empty or not a complete answer.

    Args:
        finish: why the answer ended, as in `Reply`. An answer that was cut off by its length is returned; see
            `was_cut_off`.
    """
    if (finish or "").lower() in BROKEN_OFF:
        return None
    channels = list(_CHANNEL.finditer(text))
    if channels:
        if channels[-1][1].lower() != "final":
            return None
        text = text[channels[-1].end() :]
    closings = list(_CLOSING.finditer(text))
    if closings:
        text = text[closings[-1].end() :]
    if _OPENING.search(text):
        return None
    return _WRAPPER.sub("", text).strip() or None


def was_cut_off(finish: str | None) -> bool:
    """Return whether the server cut an answer off at the maximum length."""
    return (finish or "").lower() in CUT_OFF


def verdict_probabilities(
    text: str,
    steps: Sequence[Mapping[str, float]] | None,
    verdict_of: Callable[[str], Verdict | None],
    *,
    min_mass: float = MIN_MASS,
) -> dict[Verdict, float] | None:
    """Return the probability of each verdict at the first token of the final answer.

    Tokens are grouped by their verdict, so " Yes" and "yes." count together.

    Args:
        text: the final answer, from `final_text`.
        steps: for each token its alternatives {token: log-probability}, the chosen one first.
        verdict_of: returns the verdict that a token expresses on its own, or None. Spaces and punctuation
            around the token are removed first.
        min_mass: smallest total probability of the verdicts at which the token decides.

    Returns:
        Probabilities whose sum is at least `min_mass`. None if the tokens do not belong to the text or do not
        decide; parse the text instead.
    """
    step = _first_step(text, steps or [])
    if step is None:
        return None
    masses: dict[Verdict, float] = {}
    for token, logprob in step.items():
        verdict = verdict_of(_bare(token))
        if verdict is not None:
            masses[verdict] = masses.get(verdict, 0.0) + math.exp(logprob)
    return masses if sum(masses.values()) >= min_mass else None


def _first_step(text: str, steps: Sequence[Mapping[str, float]]) -> Mapping[str, float] | None:
    """Return the alternatives at the first token of `text` that has a letter or digit."""
    chosen = [next(iter(step)) for step in steps]
    joined = "".join(chosen)
    if joined.rstrip().endswith(text):
        place = len(joined.rstrip()) - len(text)
    elif joined.strip() and text.startswith(joined.strip()):  # the server sent the first tokens only
        place = 0
    else:
        return None
    word = re.compile(r"\w").search(joined, place)
    end = 0
    for token, step in zip(chosen, steps):
        end += len(token)
        if word and end > word.start():
            return step
    return None


def _bare(token: str) -> str:
    """Return a token in lower case, without surrounding spaces, quotes and markup. Keeps a minus sign."""
    return token.strip(" \t\r\n\u2581\u0120\u010a\"'`*_.,:;!()[]<>#").casefold()
