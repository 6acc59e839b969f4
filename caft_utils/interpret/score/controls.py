"""Controls: scores of explanations that cannot be right. Their level is not always one half.

- A random explanation belongs to another direction. It has the style of a right explanation and describes the
  same corpus. Random explanations reach 0.51 in arXiv 2410.13928.
- A wrong explanation belongs to a direction that is known to be about something else. It scores below chance,
  because the text that it describes occurs only among the non-activating windows.
- A shuffled direction is active at random: its activations are permuted among the same windows.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from caft_utils.arguments import checked
from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.text_window import TextWindow

if TYPE_CHECKING:
    from caft_utils.interpret.explain import Explanation

Text = TypeVar("Text", str, "Explanation")


@checked
def random_explanation(explanations: Mapping[Hashable, Text], key: Hashable, *, seed: int = 0) -> Text:
    """Return the explanation of a random direction other than `key`, with a different text.

    Raises:
        ValueError: all explanations have the same text.
    """
    others = [other for other in explanations.values() if other != explanations[key]]
    if not others:
        raise ValueError(
            f"all {len(explanations)} explanations are alike, so no other one can be drawn; expected at "
            "least two that differ"
        )
    return random.Random(f"{seed} {key}").choice(others)


@checked
def shuffle_activations(examples: FeatureExamples, *, seed: int = 0) -> FeatureExamples:
    """Return the same windows for scorers with randomly permuted activations.

    This randomises which windows count as activating, and which of their tokens do. Activations are also
    permuted within a window, because a peak in the middle would reveal the windows that were activating.
    """
    rng = random.Random(f"{seed} {examples.layer} {examples.index} {examples.side}")
    windows = [*examples.scorer_windows, *examples.scorer_negatives, *examples.hard_negatives]
    shuffled = [
        _with_activations(rng, text, source)
        for text, source in zip(rng.sample(windows, len(windows)), windows)
    ]
    n, m = len(examples.scorer_windows), len(examples.scorer_windows) + len(examples.scorer_negatives)
    return replace(
        examples, scorer_windows=shuffled[:n], scorer_negatives=shuffled[n:m], hard_negatives=shuffled[m:]
    )


def _with_activations(rng: random.Random, text: TextWindow, source: TextWindow) -> TextWindow:
    """Return `text` with the activations of `source` in random order, always including the largest."""
    size = len(text.tokens)
    values = sorted(source.activations, reverse=True)
    values = [values[i * len(values) // size] for i in range(size)]
    rng.shuffle(values)
    peak = max(range(size), key=values.__getitem__)
    return replace(text, activations=values, peak=peak, position=text.position - text.peak + peak)
