"""A reader that is a program: evidence, explanations, their scores and the choice, in one call.

The four steps are those of notebook 05, with nothing asked of anybody: windows of text in which a direction
is active and in which it is not, an explanation written from one half of the rows, detection on the other
half, and the relevance of what is said where the direction is active.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from caft_utils.features import Features
from caft_utils.interpret.examples import collect_examples
from caft_utils.interpret.explain import TokenStatistics
from caft_utils.interpret.score import detection
from caft_utils.interpret.score.word_overlap import WordOverlap
from caft_utils.interpret.select.automatic import AutomaticSelection, select_automatically
from caft_utils.interpret.select.concepts import Concept, HintStatistics

if TYPE_CHECKING:
    from caft_utils.chats import Chats


def read_and_select(
    model: nn.Module, chats: Chats, features: Features, concept: Concept, *, n: int = 100, seed: int = 0
) -> AutomaticSelection:
    """The directions of `readable` that are about the concept, as far as text shows.

    Args:
        readable: `Directions`, or the `Latents` of sparse autoencoders that are to be read.
        chats: text for the model to read, half of it for the explanations and half for their scores.
        n: windows of each kind. seed: of the division of the rows and of what is drawn.

    Returns:
        A selection with a reason for each direction; its ticks are empty where none is relevant enough.
    """
    evidence = collect_examples(model, chats, features, n=n, seed=seed)
    explain, judge = TokenStatistics(), WordOverlap()
    explanations = {key: explain(each) for key, each in evidence.items()}
    held = {key: detection(explanations[key].text, each, judge) for key, each in evidence.items()}
    return select_automatically(explanations, concept, judge=HintStatistics(evidence), scores=held)
