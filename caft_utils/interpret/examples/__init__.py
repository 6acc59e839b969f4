"""Evidence of what a direction responds to: windows of text, read in one pass that keeps little."""

from caft_utils.interpret.examples.collection import (
    ACTIVE_SHARE,
    FeatureExamples,
    Key,
    TooFewExamples,
    collect_examples,
)

__all__ = ["ACTIVE_SHARE", "FeatureExamples", "Key", "TooFewExamples", "collect_examples"]
