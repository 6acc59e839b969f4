"""Intervention: does steering along a direction make the model write what the explanation describes?

Scores on text that a model reads do not tell how a direction affects the text that the model writes, which
matters for ablation. Prompts are continued with and without steering. The score is how much more probable a
judge finds the explanation in the steered texts,

    mean over prompts of  logit p(z | steered) - logit p(z | plain)      (nats; 0: no effect that z describes)

(arXiv 2410.13928, section 3.3.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, log

from jaxtyping import Float
from torch import Tensor

from caft_utils.evaluation.scores import Score, mean_score
from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.score.scorers import Scorer
from caft_utils.interpret.score.steering import SteeredGenerator
from caft_utils.interpret.score.window_judges import WindowJudge

MIN_PROBABILITY = 0.02  # probabilities are clipped to this distance from 0 and 1, to keep logits finite


@dataclass(frozen=True)
class InterventionScore(Scorer):
    """Mean gain of the explanation's log-odds, in nats, when the model is steered along the direction.

    generator: share one among all directions of a model, so that the plain continuations are generated once.
    vector_of: (layer, index) -> the direction, for example `features.vector`. It is negated for the side "-"
        of a component.

    `Score.extra` holds the strength and the KL that was reached. The score is not bounded.
    """

    judge: WindowJudge
    generator: SteeredGenerator
    vector_of: Callable[[int, int], Float[Tensor, " d"]]
    name = "intervention"

    def score(self, explanation: str, examples: FeatureExamples) -> Score:
        vector = self.vector_of(examples.layer, examples.index)
        steered = self.generator.generate(examples.layer, -vector if examples.side == "-" else vector)
        plain_texts = self.generator.plain_texts
        replies = self.judge(explanation, [_as_window(text) for text in plain_texts + steered.texts])
        logits = [_logit(p) for p in replies]
        before, after = logits[: len(plain_texts)], logits[len(plain_texts) :]
        gains = [None if a is None or b is None else b - a for a, b in zip(before, after)]
        return mean_score(self.name, gains, strength=steered.strength, kl=steered.kl)


def _logit(p: float | None) -> float | None:
    if p is None or not isfinite(p):
        return None
    p = min(max(p, MIN_PROBABILITY), 1 - MIN_PROBABILITY)
    return log(p / (1 - p))


def _as_window(text: str) -> TextWindow:
    """Return a text as a window for judges, without activations and without a position in a row."""
    return TextWindow([text], [0.0], 0, -1, 0)
