"""Interpret features: the text that activates them, explanations and their scores, selection by concept."""

from caft_utils.interpret.examples.histogram import Histogram
from caft_utils.interpret.examples.lens import logit_lens
from caft_utils.interpret.examples.max_activating import Extremes, extreme_windows
from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.explorer import Explorer, explore

__all__ = ["Extremes", "Explorer", "Histogram", "TextWindow", "explore", "extreme_windows", "logit_lens"]
