"""From a model to a figure with an interval: generate answers, judge them, count, compare."""

from caft_utils.evaluation.bootstrap import Rate, clustered_rate
from caft_utils.evaluation.comparison import Comparison, compare
from caft_utils.evaluation.generation import generate
from caft_utils.evaluation.graders import ThresholdGrader
from caft_utils.evaluation.measurement import Result, measure

__all__ = [
    "Comparison",
    "Rate",
    "Result",
    "ThresholdGrader",
    "clustered_rate",
    "compare",
    "generate",
    "measure",
]
