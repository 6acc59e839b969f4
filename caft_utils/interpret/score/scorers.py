"""Base class of all scorers, the check of their input, and `score_all` for a list of scorers.

A scorer measures how well an explanation predicts what a direction does on text that the explainer did not
see. `Detection`, `Fuzzing`, `Surprisal`, `Embedding` and `InterventionScore` follow arXiv 2410.13928, section
3.3. `Simulation` is the older reference (Bills et al. 2023).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from caft_utils.evaluation.scores import Score
from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.text_window import TextWindow

if TYPE_CHECKING:
    from caft_utils.interpret.explain import Explanation


class Scorer(ABC):
    """Score explanations: `scorer(explanation, examples)` returns a `Score`.

    A new scorer implements `score` and sets `name`, which its scores carry.
    """

    name: str

    def __call__(self, explanation: str | Explanation, examples: FeatureExamples) -> Score:
        """Score one explanation on the scorer's windows of `examples`.

        Raises:
            ValueError: the explainer's windows and the scorer's share a row of text.
        """
        check_disjoint(examples)
        return self.score(explanation if isinstance(explanation, str) else explanation.text, examples)

    @abstractmethod
    def score(self, explanation: str, examples: FeatureExamples) -> Score:
        """Score one explanation; `examples` has been checked."""


def score_all(
    scorers: Iterable[Scorer], explanation: str | Explanation, examples: FeatureExamples
) -> dict[str, Score]:
    """Return the scores of one explanation by the scorers' names.

    Raises:
        ValueError: two scorers have the same name, or the explainer's windows and the scorer's share a row.
    """
    scores: dict[str, Score] = {}
    for scorer in scorers:
        if scorer.name in scores:
            raise ValueError(f"two scorers are called {scorer.name!r}; score them in separate calls")
        scores[scorer.name] = scorer(explanation, examples)
    return scores


def check_disjoint(examples: FeatureExamples) -> None:
    """Raise ValueError if the explainer and the scorer see windows from the same row of text.

    Windows of one row resemble each other, so such a score would measure memorisation.
    """
    seen = {w.row for w in examples.explainer_windows + examples.explainer_negatives}
    scored = examples.scorer_windows + examples.scorer_negatives + examples.hard_negatives
    if shared := seen & {w.row for w in scored}:
        raise ValueError(
            f"layer {examples.layer}, {examples.kind} {examples.index}: rows {sorted(shared)[:5]} were shown "
            "to the explainer (explainer_windows, explainer_negatives) and are the scorer's too "
            "(scorer_windows, scorer_negatives, hard_negatives), so the score would measure memory; split "
            "the rows, as collect_examples does"
        )


def labelled_windows(examples: FeatureExamples, hard: bool = False) -> tuple[list[TextWindow], list[bool]]:
    """Return the scorer's activating and non-activating windows, and whether each window is activating.

    Args:
        hard: take the hard negatives, whose words resemble those of activating windows.
    """
    negatives = examples.hard_negatives if hard else examples.scorer_negatives
    windows = [*examples.scorer_windows, *negatives]
    return windows, [True] * len(examples.scorer_windows) + [False] * len(negatives)
