"""Detection: can a judge tell activating windows from the others, given the explanation?

The score is the AUROC of the judge's probabilities. (arXiv 2410.13928, section 3.3.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caft_utils.evaluation.scores import Score, auroc_score
from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.score.scorers import Scorer, labelled_windows
from caft_utils.interpret.score.window_judges import WindowJudge


@dataclass(frozen=True)
class Detection(Scorer):
    """AUROC of the judge's probability that a window fits the explanation.

    hard: compare with hard negatives, whose words resemble those of activating windows.

    `Score.extra` holds the balanced accuracy at a probability of one half.
    """

    judge: WindowJudge
    hard: bool = False

    @property
    def name(self) -> str:
        return "detection (hard)" if self.hard else "detection"

    def score(self, explanation: str, examples: FeatureExamples) -> Score:
        windows, active = labelled_windows(examples, self.hard)
        probabilities = self.judge(explanation, windows)
        rows = [window.row for window in windows]
        return auroc_score(
            self.name, probabilities, active, rows, **_balanced_accuracy(probabilities, active)
        )


def _balanced_accuracy(probabilities: Sequence[float | None], active: Sequence[bool]) -> dict[str, float]:
    """Return the balanced accuracy by name, or nothing if a class has no readable reply."""
    guesses = [(p >= 0.5, truth) for p, truth in zip(probabilities, active) if p is not None]
    classes = [[guess == side for guess, truth in guesses if truth == side] for side in (True, False)]
    if not all(classes):
        return {}
    return {"balanced_accuracy": sum(sum(correct) / len(correct) for correct in classes) / 2}
