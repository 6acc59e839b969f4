"""Reading what a direction means: the text at its two ends, the words it raises, a widget to decide."""

from caft_utils.interpret.examples.max_activating import (
    Extremes,
    Histogram,
    TextWindow,
    extreme_windows,
    logit_lens,
)
from caft_utils.interpret.explorer import Explorer, explore

__all__ = ["Extremes", "Explorer", "Histogram", "TextWindow", "explore", "extreme_windows", "logit_lens"]
