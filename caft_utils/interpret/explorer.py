"""The explorer: read a component's two ends, decide whether it means the unwanted concept, tick and name it.

In CAFT a person chooses by reading which directions to ablate. The explorer shows the evidence on one
component at a time and takes down the decision; `selection` is what `Directions.select` takes. Without a
kernel the same cards are plain HTML. (arXiv 2507.16795, section 3; both ends are shown because a component's
sign is a convention.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import nn

from caft_utils.directions.basis import Directions
from caft_utils.interpret import cards
from caft_utils.interpret.windows import Ends, extreme_windows, logit_lens

if TYPE_CHECKING:
    from caft_utils.rows import Chats


def explore(
    found: Directions,
    model: nn.Module,
    chats: Chats,
    *,
    ticks: Mapping[int, Sequence[int]] | None = None,
    names: Mapping[tuple[int, int], str] | None = None,
    n: int = 8,
    width: int = 12,
    batch_size: int = 32,
    progress: bool = False,
) -> Explorer:
    """Collect the evidence on every direction of `found` from what `model` reads in `chats`, and show it.

    Args:
        ticks, names: {layer: [i, ...]} and {(layer, i): name}, decisions made before, for example for a run
            that nobody watches.
        n, width: windows at each end, and tokens in each.

    Raises:
        IndexError, KeyError: a tick or name for a direction that `found` has not.
    """
    ends = extreme_windows(model, chats, found, n=n, width=width, batch_size=batch_size, progress=progress)
    words = {(layer, i): logit_lens(model, found[layer][i], chats.tokenizer) for layer, i in ends}
    return Explorer(found, ends, words, ticks=ticks, names=names)


class Explorer:
    """What `explore` returns: shown as a widget in Jupyter, as cards elsewhere; holds ticks and names.

    ends, words: what `extreme_windows` and `logit_lens` give, by (layer, i).
    """

    def __init__(
        self,
        found: Directions,
        ends: Mapping[tuple[int, int], Ends],
        words: Mapping[tuple[int, int], tuple[list[str], list[str]]],
        *,
        ticks: Mapping[int, Sequence[int]] | None = None,
        names: Mapping[tuple[int, int], str] | None = None,
    ):
        self.found, self.ends, self.words = found, dict(ends), dict(words)
        self._ticked: set[tuple[int, int]] = set()
        self._names: dict[tuple[int, int], str] = {}
        for layer, indices in (ticks or {}).items():
            for i in indices:
                self.tick(int(layer), int(i))
        for (layer, i), name in (names or {}).items():
            self.name(layer, i, name)

    @property
    def components(self) -> list[tuple[int, int]]:
        return list(self.ends)

    @property
    def selection(self) -> dict[int, list[int]]:
        """{layer: [i, ...]} of what is ticked, as `Directions.select` takes it."""
        chosen: dict[int, list[int]] = {}
        for layer, i in sorted(self._ticked):
            chosen.setdefault(layer, []).append(i)
        return chosen

    @property
    def names(self) -> dict[tuple[int, int], str]:
        """{(layer, i): name} of what has a name."""
        return dict(sorted(self._names.items()))

    def tick(self, layer: int, i: int, on: bool = True) -> None:
        """Tick a component for ablation, or take the tick away."""
        component = self._known(layer, i)
        (self._ticked.add if on else self._ticked.discard)(component)

    def name(self, layer: int, i: int, name: str) -> None:
        """Write down what a component means; an empty name removes it."""
        component = self._known(layer, i)
        if name.strip():
            self._names[component] = name.strip()
        else:
            self._names.pop(component, None)

    def _known(self, layer: int, i: int) -> tuple[int, int]:
        if not 0 <= i < len(self.found[layer]):
            raise IndexError(f"layer {layer} has components 0 to {len(self.found[layer]) - 1}, got {i}")
        return layer, i

    def html(self, n: int = 4) -> str:
        """All cards, with n windows at each end; the ticked ones (else the first) are open."""
        opened = self._ticked or set(self.components[:1])
        inner = "".join(
            f"<details{' open' if component in opened else ''}><summary>{self._header(component)}</summary>"
            f"{cards.evidence(self.ends[component], self.words[component], n)}</details>"
            for component in self.components
        )
        return cards.page(f"<div class='note'>{cards.NOTE}</div>{inner}")

    def card(self, layer: int, i: int) -> str:
        """One component's card with all its windows."""
        component = self._known(layer, i)
        evidence = cards.evidence(self.ends[component], self.words[component])
        return cards.page(f"<article>{self._header(component)}{evidence}</article>")

    def _header(self, component: tuple[int, int]) -> str:
        layer, i = component
        shares = self.found.about.get("explained_variance", {}).get(str(layer))
        name = self._names.get(component, "")
        return cards.header(layer, i, shares[i] if shares else None, name, component in self._ticked)

    @cached_property
    def widget(self) -> Any:
        """The ipywidgets box: choose a component, read its card, tick and name it."""
        import ipywidgets as w

        def wide(pixels: int) -> w.Layout:
            return w.Layout(width=f"{pixels}px")

        def label(component: tuple[int, int]) -> str:
            layer, i = component
            mark = "\u2713 " if component in self._ticked else ""
            name = f": {self._names[component]}" if component in self._names else ""
            return f"{mark}{'embedding' if layer < 0 else f'layer {layer}'}, component {i}{name}"

        back = w.Button(description="\u25c0 previous", layout=wide(110))
        ahead = w.Button(description="next \u25b6", layout=wide(110))
        choice = w.Dropdown(options=[(label(c), c) for c in self.components], layout=wide(340))
        ablate = w.Checkbox(description="ablate this one", indent=False, layout=wide(140))
        name = w.Text(placeholder="what does it mean?", continuous_update=False, layout=wide(280))
        card, chosen = w.HTML(), w.Label()
        showing = False  # True while the controls are set from here, which is nobody's decision

        def show():
            nonlocal showing
            showing = True
            component = choice.value
            choice.options = [(label(c), c) for c in self.components]
            choice.value = component
            ablate.value, name.value = component in self._ticked, self._names.get(component, "")
            card.value = self.card(*component)
            ticked = [f"layer {layer}: {', '.join(map(str, i))}" for layer, i in self.selection.items()]
            chosen.value = f"to ablate: {'; '.join(ticked) or 'none yet'}"
            showing = False

        def decide(_):
            if not showing:
                self.tick(*choice.value, on=ablate.value)
                self.name(*choice.value, name.value)
                show()

        def step(by: int):
            at = self.components.index(choice.value) + by
            choice.value = self.components[at % len(self.components)]

        choice.observe(lambda _: showing or show(), "value")
        ablate.observe(decide, "value")
        name.observe(decide, "value")
        back.on_click(lambda _: step(-1))
        ahead.on_click(lambda _: step(1))
        show()
        self.controls = {"back": back, "ahead": ahead, "choice": choice, "ablate": ablate, "name": name}
        return w.VBox([w.HBox([back, choice, ahead]), w.HBox([ablate, name, chosen]), card])

    def _repr_mimebundle_(self, **kwargs) -> dict[str, Any]:
        """The widget for readers with a kernel, the cards for those without."""
        bundle = self.widget._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        return {**data, "text/html": self.html()}
