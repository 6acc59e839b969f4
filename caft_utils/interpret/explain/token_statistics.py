"""Explanations: from windows in which a direction is active to a sentence that says what they share.

`TokenStatistics` needs no model (explain_by_model.py asks one). A word is telling when it stands in more of
the windows that activate than of those that do not: y of n against m of N, where a window counts less if the
word itself is not active in it. Words are ranked by the log odds ratio over its standard error, with half a
count added to each cell as prior (after Monroe et al., "Fightin' Words", Political Analysis 2008):

    d = log (y + 1/2) / (n - y + 1/2) - log (m + 1/2) / (N - m + 1/2)
    z = d / sqrt(1 / (y + 1/2) + 1 / (n - y + 1/2) + 1 / (m + 1/2) + 1 / (N - m + 1/2))
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from caft_utils.interpret.examples import ACTIVE_SHARE, FeatureExamples
from caft_utils.interpret.examples.max_activating import TextWindow

WORD = re.compile(r"<\|?/?\w+\|?>|[^\W_]+(?:['’][^\W_]+)*")  # a chat template's markup, or a word
COMMON = frozenset(
    "a an and are as at be been but by can do does for from had has have if in into is it its of on or so "
    "that the their then there these this those to was were what when which will with would".split()
)  # never telling by themselves, except where a direction peaks on them
REACH = 5  # tokens: so far from an active token a word may stand that the state prepares to say
FOLLOWING, FAR = (
    0.5,
    0.25,
)  # of a word that follows so, of one further on; an active one weighs 0.5 to 1
TELLING = 0.6  # smallest z: active in one window and standing in no silent one is just enough


@dataclass(frozen=True)
class Explanation:
    """What a direction is about, in words, and the name of the explainer that says so."""

    text: str
    by: str


class Explainer(Protocol):
    """Makes a sentence of evidence."""

    name: str

    def __call__(self, evidence: FeatureExamples) -> Explanation: ...


def words(window: TextWindow) -> Iterator[tuple[str, int, int]]:
    """(word, first, last): the words of a window in lower case, and the tokens that each is made of.

    A first word that the window may have cut in two is left out.
    """
    text, owner = "".join(window.tokens), [i for i, token in enumerate(window.tokens) for _ in token]
    for match in WORD.finditer(text):
        if match.start() == 0 and window.position > window.peak and match[0][0] != "<":
            continue
        yield match[0].lower().replace("’", "'"), owner[match.start()], owner[match.end() - 1]


@dataclass(frozen=True)
class TokenStatistics:
    """Lists telling words, for example: text about "villain", "steal" (at the peak: "rob"; after "how");
    pushes towards "laugh", "gloat".

    about: at most so many words that are active or follow active ones (a hidden state also holds what comes
        next); peak: words that hold the peak; before: words ahead of all that is active; pushes: words that
        the logit lens reads.
    """

    about: int = 16
    peak: int = 6
    before: int = 3
    pushes: int = 6
    name: str = "token statistics"

    def __call__(self, evidence: FeatureExamples) -> Explanation:
        active, peaks, before, elsewhere = Counter(), Counter(), Counter(), Counter()
        for window in evidence.train:
            strength, held, ahead = _weighted(window, evidence.max_activation)
            # Once a window, so that a text that repeats itself has one voice.
            active.update(strength)
            peaks.update(held)
            before.update(ahead)
        for window in evidence.train_negatives:
            elsewhere.update({word for word, _, _ in words(window)})

        def telling(here: Counter[str]) -> list[str]:
            return _telling(here, len(evidence.train), elsewhere, len(evidence.train_negatives))

        at_peak = [word for word in telling(peaks) if 2 * peaks[word] >= active[word]]
        about = [word for word in telling(active) if word not in COMMON and word not in at_peak]
        at_peak, about = at_peak[: self.peak], about[: self.about]
        ahead = [word for word in telling(before) if word not in COMMON and word not in at_peak + about]
        lens = [word.lower() for word in evidence.promoted_tokens if WORD.fullmatch(word) and len(word) > 1]
        pushes = list(dict.fromkeys(lens))[: self.pushes]
        return Explanation(_sentence(about, at_peak, ahead[: self.before], pushes), self.name)


def _weighted(window: TextWindow, strongest: float) -> tuple[dict[str, float], set[str], set[str]]:
    """({word: weight} of what is active or comes after, words at the peak, words ahead of all these)."""
    marked = {i for i, value in enumerate(window.activations) if value > ACTIVE_SHARE * strongest} | {
        window.peak
    }
    weights, held, ahead = {}, set(), set()
    for word, first, last in words(window):
        here = marked.intersection(range(first, last + 1))
        if here:
            weight = 0.5 + 0.5 * min(1.0, max(window.activations[i] for i in here) / strongest)
            held |= {word} if window.peak in here else set()
        elif marked.intersection(range(first - REACH, first)):
            weight = FOLLOWING
        elif last < window.peak:
            ahead.add(word)
            continue
        else:
            weight = FAR
        weights[word] = max(weight, weights.get(word, 0.0))
    return weights, held, ahead - weights.keys()


def said_by(window: TextWindow, strongest: float) -> list[str]:
    """Words where the direction is active, or that follow within a few tokens."""
    weights, _, _ = _weighted(window, strongest)
    return [word for word, weight in weights.items() if weight >= FOLLOWING]


def _telling(here: Counter[str], n: int, elsewhere: Counter[str], other: int) -> list[str]:
    """Words of n windows that stand in fewer of the `other` windows elsewhere, the most telling first."""
    z = {word: odds_ratio(y, n, elsewhere[word], other) for word, y in here.items()}
    return sorted((word for word in z if z[word] >= TELLING), key=lambda word: (-z[word], word))


def odds_ratio(y: float, n: int, m: float, other: int) -> float:
    """The log odds ratio of y of n against m of `other`, over its standard error."""
    cells = (y + 0.5, n - y + 0.5, m + 0.5, other - m + 0.5)
    ratio = math.log(cells[0] / cells[1]) - math.log(cells[2] / cells[3])
    return ratio / math.sqrt(sum(1 / cell for cell in cells))


def _sentence(about: list[str], at_peak: list[str], before: list[str], pushes: list[str]) -> str:
    def listed(found: list[str]) -> str:
        return ", ".join(f'"{word}"' for word in found)

    after = f"after {listed(before)}" if before else ""
    if about:
        peak = f"at the peak: {listed(at_peak)}" if at_peak else ""
        more = "; ".join(filter(None, (peak, after)))
        text = f"text about {listed(about)}" + (f" ({more})" if more else "")
    elif at_peak:
        text = f"text that peaks at {listed(at_peak)}" + (f" ({after})" if after else "")
    else:
        text = f"text {after}" if after else "text in which no word stands out"
    return text + (f"; pushes towards {listed(pushes)}" if pushes else "")
