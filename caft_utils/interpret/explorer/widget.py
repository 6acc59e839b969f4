"""The widget of the explorer: it receives messages from the browser and sends back the view.

All state is in the `Explorer`. After every action the dictionary `view` describes what to display, and
explorer.js draws it, so the browser always shows the current decisions. Key presses are handled only while
the explorer has the focus. Elsewhere JupyterLab's command mode handles them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from caft_utils.formatting import printable
from caft_utils.interpret.explorer import cards

if TYPE_CHECKING:
    from caft_utils.interpret.explorer.decisions import Decisions

HERE = Path(__file__).parent


class ExplorerWidget(anywidget.AnyWidget):
    """The view of one `Explorer`; it may be displayed in several places at once.

    Args:
        explorer: the decisions to show and change. article: returns the card of (layer, index) as HTML.
    """

    _esm = (HERE / "explorer.js").read_text(encoding="utf-8")
    _css = (HERE / "explorer.css").read_text(encoding="utf-8")
    view = traitlets.Dict().tag(sync=True)

    def __init__(self, explorer: Decisions, article: Callable[[int, int], str]):
        self.explorer, self.article, self.at, self.message = explorer, article, 0, ""
        super().__init__()
        self.on_msg(self._handle)
        self.draw()

    def draw(self) -> None:
        """Update the description of what to display."""
        explorer = self.explorer
        here = explorer.components[self.at]
        self.view = {
            "at": self.at,
            "tiles": [self._tile(component) for component in explorer.components],
            "state": explorer.state(*here),
            "name": printable(explorer.names.get(here, "")),
            "progress": explorer.progress,
            "message": printable(self.message),
            "card": self.article(*here),
        }

    def _tile(self, component: tuple[int, int]) -> dict[str, str]:
        layer, index = component
        state, name = self.explorer.state(layer, index), self.explorer.names.get(component)
        title = cards.title(layer, index, self.explorer.features.kind)
        return {
            "layer": "embedding" if layer < 0 else f"layer {layer}",
            "label": str(index),
            "state": state,
            "title": printable(", ".join(filter(None, (title, name, cards.STATE_LABELS.get(state))))),
        }

    def _handle(self, _, message: dict[str, Any], __) -> None:
        """Carry out an action of the reader: step, show, decide, name or export."""
        explorer, self.message = self.explorer, ""
        here, places = explorer.components[self.at], range(len(explorer.components))
        match message:
            case {"do": "step", "by": int(by)}:
                self.at = (self.at + by) % len(explorer.components)
            case {"do": "show", "at": int(at)} if at in places:
                self.at = int(at)
            case {"do": "decide", "what": str(what)}:  # pressing the same key again undoes the decision
                explorer.decide(*here, "" if explorer.state(*here) == what else what)
            case {"do": "name", "at": int(at), "name": str(name)} if at in places:
                explorer.name(*explorer.components[at], name)
            case {"do": "export"}:
                self.message = self._export()
        self.draw()

    def _export(self) -> str:
        """Export the selected directions, and return a message for the reader."""
        try:
            folder = self.explorer.export()
        except (OSError, ValueError) as error:
            return f"Nothing was written: {error}"
        return f"Saved {self.explorer.directions()!r} in {folder}"
