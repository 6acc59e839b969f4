"""Controls: what the scores give where there is nothing to explain, which is not always one half.

A random explanation is that of another direction: it has the style of a right one, and says something
about the same text. That of a direction known to be about something else is a wrong one, which is worse than
chance: its text is among the windows in which the direction is silent, and never among the others. A
shuffled direction is active at random: its activations are dealt out among the same windows. Scores of both
belong beside every score. (Random explanations reach 0.51 in arXiv 2410.13928.)
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.max_activating import TextWindow

if TYPE_CHECKING:
    from caft_utils.interpret.explain import Explanation

Text = TypeVar("Text", str, "Explanation")


def random_explanation(explanations: Mapping[Hashable, Text], key: Hashable, *, seed: int = 0) -> Text:
    """The explanation of another direction than `key`, drawn at random from those with another text.

    Raises:
        ValueError: there is no other text.
    """
    others = [given for given in explanations.values() if given != explanations[key]]
    if not others:
        raise ValueError(f"all {len(explanations)} explanations are alike, so no other one can be drawn")
    return random.Random(f"{seed} {key}").choice(others)


def shuffled(evidence: FeatureExamples, *, seed: int = 0) -> FeatureExamples:
    """The same windows for scoring, active and not, after their values were dealt out among them at random.

    Which windows count as active is thus random, and so is which of their tokens do: values change their
    places in a window too, since peaks stand in the middle and would else betray what was the peak before.
    """
    rng = random.Random(f"{seed} {evidence.layer} {evidence.index} {evidence.side}")
    windows = [*evidence.test, *evidence.test_negatives, *evidence.hard_negatives]
    dealt = [_with_values(rng, text, of) for text, of in zip(rng.sample(windows, len(windows)), windows)]
    n, m = len(evidence.test), len(evidence.test) + len(evidence.test_negatives)
    return replace(evidence, test=dealt[:n], test_negatives=dealt[n:m], hard_negatives=dealt[m:])


def _with_values(rng: random.Random, text: TextWindow, of: TextWindow) -> TextWindow:
    """`text` with the values of `of`, its largest among them, in random order."""
    size = len(text.tokens)
    values = sorted(of.activations, reverse=True)
    values = [values[i * len(values) // size] for i in range(size)]
    rng.shuffle(values)
    peak = max(range(size), key=values.__getitem__)
    return replace(text, activations=values, peak=peak, position=text.position - text.peak + peak)
