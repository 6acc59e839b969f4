"""From evidence to a sentence that says what a direction is about."""

from caft_utils.interpret.explain.token_statistics import Explainer, Explanation, TokenStatistics, words

__all__ = ["Explainer", "Explanation", "TokenStatistics", "words"]
