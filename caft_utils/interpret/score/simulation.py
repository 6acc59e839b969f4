"""Simulation: how well do a judge's predictions of token activations correlate with the true activations?

Bills et al. 2023, "Language models can explain neurons in language models".
"""

from __future__ import annotations

from dataclasses import dataclass

from caft_utils.evaluation.scores import Score, correlation_score
from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.score.scorers import Scorer, labelled_windows
from caft_utils.interpret.score.window_judges import WindowJudge


@dataclass(frozen=True)
class Simulation(Scorer):
    """Pearson's r, -1 to 1, between the judge's probability that a token fits and its activation.

    Negative activations count as 0. The judge is asked about each token separately, as a window in which only
    that token is marked. With a language model as judge, this costs many times more than `Detection`.
    """

    judge: WindowJudge
    name = "simulation"

    def score(self, explanation: str, examples: FeatureExamples) -> Score:
        windows, _ = labelled_windows(examples)
        tokens = [(w, t) for w, window in enumerate(windows) for t in range(len(window.tokens))]
        if not tokens:
            return correlation_score(self.name, [], [], [])
        replies = self.judge(explanation, [windows[w] for w, _ in tokens], [{t} for _, t in tokens])
        predicted: list[list[float | None]] = [[] for _ in windows]
        for (w, _), reply in zip(tokens, replies):
            predicted[w].append(reply)
        true = [[max(0.0, value) for value in window.activations] for window in windows]
        return correlation_score(self.name, predicted, true, [window.row for window in windows])
