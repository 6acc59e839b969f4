"""The widget in which a person reads directions, names them, and selects or discards them."""

from caft_utils.interpret.explorer.app import Explorer, explore
from caft_utils.interpret.explorer.decisions import Decisions

__all__ = ["Decisions", "Explorer", "explore"]
