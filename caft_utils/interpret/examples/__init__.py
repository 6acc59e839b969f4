"""Examples of what a feature responds to: windows of text, collected in bounded memory."""

from caft_utils.interpret.examples.collection import FeatureExamples, TooFewExamples, collect_examples
from caft_utils.interpret.examples.lens import logit_lens
from caft_utils.interpret.examples.max_activating import Extremes, extreme_windows
from caft_utils.interpret.examples.sampler import ACTIVE_SHARE
from caft_utils.interpret.examples.text_window import TextWindow

__all__ = [
    "ACTIVE_SHARE",
    "Extremes",
    "FeatureExamples",
    "TextWindow",
    "TooFewExamples",
    "collect_examples",
    "extreme_windows",
    "logit_lens",
]
