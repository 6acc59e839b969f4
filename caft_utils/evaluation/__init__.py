"""From a model to a figure with an interval: generate answers, judge them, count, compare."""

from caft_utils.evaluation.generate import generate
from caft_utils.evaluation.judges import ThresholdJudge
from caft_utils.evaluation.measure import Result, answer_loss, measure
from caft_utils.evaluation.statistics import Rate, clustered_rate
from caft_utils.evaluation.tradeoff import Comparison, compare

__all__ = [
    "Comparison",
    "Rate",
    "Result",
    "ThresholdJudge",
    "answer_loss",
    "clustered_rate",
    "compare",
    "generate",
    "measure",
]
