"""Evaluate models: generate answers, grade them, compute rates with intervals, and compare."""

from caft_utils.evaluation.bootstrap import Rate, clustered_rate
from caft_utils.evaluation.comparison import Comparison, compare
from caft_utils.evaluation.generation import generate
from caft_utils.evaluation.graders import ThresholdGrader
from caft_utils.evaluation.margins import Margin, preference_margin
from caft_utils.evaluation.measurement import Result, measure
from caft_utils.evaluation.scores import Score

__all__ = [
    "Comparison",
    "Margin",
    "Rate",
    "Result",
    "Score",
    "ThresholdGrader",
    "clustered_rate",
    "compare",
    "generate",
    "measure",
    "preference_margin",
]
