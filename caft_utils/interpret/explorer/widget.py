"""The explorer in a live notebook: what the reader does in the browser comes here, what is shown goes back.

State lives in the `Explorer` alone. After every act one dictionary, `view`, describes what is to be seen, and
explorer.js draws it: nothing in the browser can disagree with `selection` and `names`. Keys are heard only
while the explorer has the focus, so JupyterLab's command mode keeps its own everywhere else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from caft_utils.interpret.explorer import cards

if TYPE_CHECKING:
    from caft_utils.interpret.explorer import Explorer

HERE = Path(__file__).parent


class ExplorerWidget(anywidget.AnyWidget):
    """The view of one `Explorer`; it may be displayed in several places at once."""

    _esm = (HERE / "explorer.js").read_text(encoding="utf-8")
    _css = (HERE / "explorer.css").read_text(encoding="utf-8")
    view = traitlets.Dict().tag(sync=True)

    def __init__(self, explorer: Explorer):
        self.explorer, self.at, self.said = explorer, 0, ""
        super().__init__()
        self.on_msg(self._act)
        self.draw()

    def draw(self) -> None:
        """Describe anew what is to be seen."""
        explorer = self.explorer
        here = explorer.components[self.at]
        self.view = {
            "at": self.at,
            "tiles": [self._tile(component) for component in explorer.components],
            "state": explorer.state(*here),
            "name": explorer.names.get(here, ""),
            "progress": explorer.progress,
            "said": self.said,
            "card": explorer.article(*here),
        }

    def _tile(self, component: tuple[int, int]) -> dict[str, str]:
        layer, i = component
        state, name = self.explorer.state(layer, i), self.explorer.names.get(component)
        parts = [cards.title(layer, i, self.explorer.found.noun), name, cards.WORDS.get(state)]
        return {
            "layer": "embedding" if layer < 0 else f"layer {layer}",
            "label": str(i),
            "state": state,
            "title": ", ".join(filter(None, parts)),
        }

    def _act(self, _, message: dict[str, Any], __) -> None:
        """What the reader did: step, show, decide, name or export."""
        explorer, self.said = self.explorer, ""
        here = explorer.components[self.at]
        match message:
            case {"do": "step", "by": int(by)}:
                self.at = (self.at + by) % len(explorer.components)
            case {"do": "show", "at": int(at)}:
                self.at = at
            case {"do": "decide", "what": str(what)}:  # the same key again takes the decision back
                explorer.decide(*here, "" if explorer.state(*here) == what else what)
            case {"do": "name", "at": int(at), "name": str(name)}:
                explorer.name(*explorer.components[at], name)
            case {"do": "export"}:
                self.said = self._exported()
        self.draw()

    def _exported(self) -> str:
        try:
            folder = self.explorer.export()
        except (OSError, ValueError) as error:
            return f"Nothing was written: {error}"
        return f"Saved {self.explorer.selected()!r} in {folder}"
