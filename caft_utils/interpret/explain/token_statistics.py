"""Explain a direction without a model, by the words that occur more often in activating windows.

A word occurs in y of n activating windows and in m of N non-activating ones, where a window counts less if
the word itself is not active in it. Words are ranked by the log odds ratio over its standard error, with half
a count added to each cell as a prior (after Monroe et al., "Fightin' Words", Political Analysis 2008):

    d = log (y + 1/2) / (n - y + 1/2) - log (m + 1/2) / (N - m + 1/2)
    z = d / sqrt(1 / (y + 1/2) + 1 / (n - y + 1/2) + 1 / (m + 1/2) + 1 / (N - m + 1/2))
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.marked_text import active_positions
from caft_utils.interpret.words import FUNCTION_WORDS, WORD_OR_MARKUP, locate

# A word that begins within this many tokens after an active token still counts as related, because a hidden
# state also helps to predict the next words.
FOLLOWING_TOKENS = 5
FOLLOWING_WEIGHT = 0.5  # weight of a word that follows an active token; an active word weighs 0.5 to 1
DISTANT_WEIGHT = 0.25  # weight of a word further away
# A word that is active in one window and absent from all non-activating windows just reaches this z-score.
MIN_Z_SCORE = 0.6


@dataclass(frozen=True)
class Explanation:
    """What a direction responds to, in words, and the name of the explainer that wrote it."""

    text: str
    by: str


class Explainer(Protocol):
    """Write an explanation from examples of one feature."""

    name: str

    def __call__(self, examples: FeatureExamples) -> Explanation: ...


@dataclass(frozen=True)
class TokenStatistics:
    """List the distinctive words of activating windows.

    For example: text about "villain", "steal" (at the peak: "rob"; after "how"); pushes towards "laugh",
    "gloat". Function words are listed only where a direction peaks on them.

    about: largest number of words that are active or follow active ones.
    peak: largest number of words that contain the peak.
    before: largest number of words ahead of everything active.
    pushes: largest number of words that the logit lens promotes.
    """

    about: int = 16
    peak: int = 6
    before: int = 3
    pushes: int = 6
    name: str = "token statistics"

    def __call__(self, examples: FeatureExamples) -> Explanation:
        """Write the sentence. The order of the windows does not matter."""
        active, peaks, before, elsewhere = Counter(), Counter(), Counter(), Counter()
        for window in examples.explainer_windows:
            words = _words_by_place(window, examples.max_activation)
            # Each window counts once, so a repetitive text does not dominate.
            active.update(words.weights)
            peaks.update(words.at_peak)
            before.update(words.before)
        for window in examples.explainer_negatives:
            elsewhere.update({word for word, _, _ in window_words(window)})

        def distinctive(counts: Counter[str]) -> list[str]:
            return _distinctive(
                counts, len(examples.explainer_windows), elsewhere, len(examples.explainer_negatives)
            )

        at_peak = [word for word in distinctive(peaks) if 2 * peaks[word] >= active[word]]
        about = [w for w in distinctive(active) if w not in FUNCTION_WORDS and w not in at_peak]
        at_peak, about = at_peak[: self.peak], about[: self.about]
        listed = at_peak + about
        ahead = [w for w in distinctive(before) if w not in FUNCTION_WORDS and w not in listed]
        promoted = [w.lower() for w in examples.promoted_tokens if WORD_OR_MARKUP.fullmatch(w) and len(w) > 1]
        pushes = list(dict.fromkeys(promoted))[: self.pushes]
        return Explanation(_sentence(about, at_peak, ahead[: self.before], pushes), self.name)


def window_words(window: TextWindow) -> Iterator[tuple[str, int, int]]:
    """Yield the words of a window in lower case, as (word, first token, last token).

    The first word is left out if the window's edge may have cut it in two.
    """
    for match, first, last in locate(WORD_OR_MARKUP, window.tokens):
        cut = match.start() == 0 and window.position > window.peak and match[0][0] != "<"
        if not cut:
            yield match[0].lower().replace("’", "'"), first, last


def active_words(window: TextWindow, max_activation: float) -> list[str]:
    """Return the words at which a direction is active, and the words that follow within a few tokens."""
    weights = _words_by_place(window, max_activation).weights
    return [word for word, weight in weights.items() if weight >= FOLLOWING_WEIGHT]


@dataclass(frozen=True)
class _WordsByPlace:
    """weights: weight of each word that is active or comes later. before: words ahead of all of these."""

    weights: dict[str, float]
    at_peak: set[str]
    before: set[str]


def _words_by_place(window: TextWindow, max_activation: float) -> _WordsByPlace:
    active = active_positions(window, max_activation) | {window.peak}
    weights, at_peak, before = {}, set(), set()
    for word, first, last in window_words(window):
        inside = active.intersection(range(first, last + 1))
        if inside:
            strongest = max(window.activations[i] for i in inside)
            weight = 0.5 + 0.5 * min(1.0, strongest / max_activation)
            if window.peak in inside:
                at_peak.add(word)
        elif active.intersection(range(first - FOLLOWING_TOKENS, first)):
            weight = FOLLOWING_WEIGHT
        elif last < window.peak:
            before.add(word)
            continue
        else:
            weight = DISTANT_WEIGHT
        weights[word] = max(weight, weights.get(word, 0.0))
    return _WordsByPlace(weights, at_peak, before - weights.keys())


def _distinctive(counts: Counter[str], n: int, elsewhere: Counter[str], n_elsewhere: int) -> list[str]:
    """Return the words of n windows that are rarer in `n_elsewhere` other windows, highest z-score first."""
    z = {word: log_odds_z(y, n, elsewhere[word], n_elsewhere) for word, y in counts.items()}
    return sorted((word for word in z if z[word] >= MIN_Z_SCORE), key=lambda word: (-z[word], word))


def log_odds_z(y: float, n: int, m: float, n_other: int) -> float:
    """Return the log odds ratio of y of n against m of `n_other`, over its standard error."""
    cells = (y + 0.5, n - y + 0.5, m + 0.5, n_other - m + 0.5)
    ratio = math.log(cells[0] / cells[1]) - math.log(cells[2] / cells[3])
    return ratio / math.sqrt(sum(1 / cell for cell in cells))


def _sentence(about: list[str], at_peak: list[str], before: list[str], pushes: list[str]) -> str:
    def quoted(words: list[str]) -> str:
        return ", ".join(f'"{word}"' for word in words)

    after = f"after {quoted(before)}" if before else ""
    if about:
        peak = f"at the peak: {quoted(at_peak)}" if at_peak else ""
        details = "; ".join(filter(None, (peak, after)))
        text = f"text about {quoted(about)}" + (f" ({details})" if details else "")
    elif at_peak:
        text = f"text that peaks at {quoted(at_peak)}" + (f" ({after})" if after else "")
    else:
        text = f"text {after}" if after else "text in which no word stands out"
    return text + (f"; pushes towards {quoted(pushes)}" if pushes else "")
