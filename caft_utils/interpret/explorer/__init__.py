"""The widget in which a person reads directions, names them and keeps or discards them."""

from caft_utils.interpret.explorer.app import Explorer, explore

__all__ = ["Explorer", "explore"]
