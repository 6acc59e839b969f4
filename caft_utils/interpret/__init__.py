"""Reading what a direction means: the text at its two ends, the words it raises, a widget to decide."""

from caft_utils.interpret.evidence.windows import Ends, Histogram, Window, extreme_windows, logit_lens
from caft_utils.interpret.explorer import Explorer, explore

__all__ = ["Ends", "Explorer", "Histogram", "Window", "explore", "extreme_windows", "logit_lens"]
