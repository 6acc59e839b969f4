"""Scorers measure how well an explanation predicts a direction's activity on text that it was not made from.

    Detection          which windows are active?                              AUROC of the judge's probability
    Fuzzing            are the marked tokens the active ones?                 AUROC of the judge's probability
    Surprisal          which windows become easier to predict?                AUROC of the reduction in loss
    Embedding          which windows resemble the explanation?                AUROC of a cosine
    InterventionScore  does steering make the model write about it?           gain of log-odds in nats
    Simulation         how active is each token?                              Pearson's r

`controls` makes wrong explanations and shuffled directions. Report their scores beside every score.
"""

from caft_utils.evaluation.scores import Score
from caft_utils.interpret.score.detection import Detection
from caft_utils.interpret.score.embedding import Embedding
from caft_utils.interpret.score.fuzzing import Fuzzing
from caft_utils.interpret.score.intervention import InterventionScore
from caft_utils.interpret.score.scorers import Scorer, score_all
from caft_utils.interpret.score.simulation import Simulation
from caft_utils.interpret.score.steering import SteeredGenerator
from caft_utils.interpret.score.surprisal import Surprisal

__all__ = [
    "Detection",
    "Embedding",
    "Fuzzing",
    "InterventionScore",
    "Score",
    "Scorer",
    "Simulation",
    "SteeredGenerator",
    "Surprisal",
    "score_all",
]
