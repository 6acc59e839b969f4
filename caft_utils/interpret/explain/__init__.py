"""Explainers turn text in which a direction is active into a sentence about what it responds to."""

from caft_utils.interpret.explain.token_statistics import Explainer, Explanation, TokenStatistics

__all__ = ["Explainer", "Explanation", "TokenStatistics"]
