"""Evidence of what a direction responds to: windows of text, read in one pass that keeps little."""

from caft_utils.interpret.evidence.evidence import (
    ACTIVE,
    Evidence,
    Key,
    TooFewWindows,
    collect_evidence,
)

__all__ = ["ACTIVE", "Evidence", "Key", "TooFewWindows", "collect_evidence"]
