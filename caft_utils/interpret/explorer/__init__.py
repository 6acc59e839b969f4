"""The widget in which a person reads directions, names them and keeps or discards them."""

from caft_utils.interpret.explorer.explorer import Explorer, explore

__all__ = ["Explorer", "explore"]
