"""The explorer: read a component or a latent, decide whether it means the unwanted concept, tick and name it.

In CAFT a person chooses by reading which directions to ablate. The explorer shows the evidence on one of them
at a time and takes down the decision. Without a kernel the same cards are plain HTML. (arXiv 2507.16795,
section 3; both ends of a component are shown because its sign is a convention.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from caft_utils.directions.subspace import Directions
from caft_utils.features import Features
from caft_utils.interpret.examples import Extremes, extreme_windows, logit_lens
from caft_utils.interpret.explorer import cards
from caft_utils.interpret.explorer.decisions import Decisions
from caft_utils.interpret.explorer.scorecard import explanation_html

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.interpret.explain import Explanation
    from caft_utils.interpret.score import Score

MOST = 60  # cards on the page without a kernel: notebooks keep it, and it must not grow with the dictionary


def explore(
    model: nn.Module,
    chats: Chats,
    features: Features,
    *,
    ticks: Mapping[int, Sequence[int]] | None = None,
    names: Mapping[tuple[int, int], str] | None = None,
    discards: Mapping[int, Sequence[int]] | None = None,
    explanations: Mapping[tuple[int, int, str], Explanation] | None = None,
    scores: Mapping[tuple[int, int, str], Mapping[str, Score]] | None = None,
    folder: str | Path = "selection",
    n: int = 8,
    width: int = 12,
    batch_size: int = 32,
    progress: bool = False,
) -> Explorer:
    """Collect the evidence on every direction of `features` from what `model` reads in `chats`, and show it.

    Args:
        features: `Directions`, or the `Latents` of sparse autoencoders.
        ticks, discards, names: {layer: [i, ...]} and {(layer, i): name}, decisions made before, for example
            for a run that nobody watches.
        explanations, scores: what explainers wrote and scorers measured, by (layer, i, "+" or "-").
        folder: where the button "export selection" writes.
        n, width: windows at each end, and tokens in each.

    Raises:
        IndexError, KeyError: a decision, explanation or score for a direction that `features` has not.
    """
    ends = extreme_windows(model, chats, features, n=n, width=width, batch_size=batch_size, progress=progress)
    words = {(layer, i): logit_lens(model, features.vector(layer, i), chats.tokenizer) for layer, i in ends}
    decided = {"ticks": ticks, "names": names, "discards": discards, "folder": folder}
    return Explorer(features, ends, words, explanations=explanations, scores=scores, **decided)


class Explorer(Decisions):
    """What `explore` returns: shown as a widget in Jupyter, as cards elsewhere; holds decisions and names.

    Args:
        ends, words: what `extreme_windows` and `logit_lens` give, by (layer, i).
        decided: ticks, names, discards and folder, as in `Decisions`.
    """

    def __init__(
        self,
        found: Features,
        ends: Mapping[tuple[int, int], Extremes],
        words: Mapping[tuple[int, int], tuple[list[str], list[str]]],
        *,
        explanations: Mapping[tuple[int, int, str], Explanation] | None = None,
        scores: Mapping[tuple[int, int, str], Mapping[str, Score]] | None = None,
        **decided: Any,
    ):
        super().__init__(found, **decided)
        self.ends, self.words = ends, words
        self.explanations, self.scores = dict(explanations or {}), dict(scores or {})
        sides = ("+", "-") if found.signed else ("+",)
        for layer, i, side in [*self.explanations, *self.scores]:
            self._known(layer, i)
            if side not in sides:
                raise KeyError(f"the sides of a {found.noun} are {' and '.join(sides)}, got {side!r}")

    def html(self, n: int = 4) -> str:
        """All cards, with n windows at each end; the ticked ones (else the first) are open.

        Of more than 60, the decided ones and then the first: a notebook keeps this page in its file.
        """
        ticked = [component for component in self.components if self.state(*component) == "ablate"]
        first = sorted(self.components, key=lambda component: not self.state(*component))[:MOST]
        opened = ticked or self.components[:1]
        inner = "".join(
            f"<details{' open' if component in opened else ''}><summary>{self._header(component)}</summary>"
            f"{self._evidence(component, n)}</details>"
            for component in sorted(first)
        )
        note = f"{cards.NOTES[self.found.signed]} {self.progress}."
        if left := len(self.components) - len(first):
            note += f" Shown are {len(first)}; {left} more stand in the explorer."
        return cards.page(f"<div class='note'>{note}</div>{inner}")

    def card(self, layer: int, i: int) -> str:
        """One direction's card with all its windows, with its style sheet."""
        return cards.page(self.article(layer, i))

    def article(self, layer: int, i: int) -> str:
        """One direction's card with all its windows, without the style sheet."""
        component = self._known(layer, i)
        return f"<article>{self._header(component)}{self._evidence(component)}</article>"

    def _header(self, component: tuple[int, int]) -> str:
        layer, i = component
        share = None
        if isinstance(self.found, Directions) and "explained_variance" in self.found.about:
            share = self.found.about["explained_variance"][str(layer)][i]
        name = self._names.get(component, "")
        return cards.header(cards.title(layer, i, self.found.noun), share, name, self.state(layer, i))

    def _evidence(self, component: tuple[int, int], n: int | None = None) -> str:
        plus, minus = ((*component, side) for side in "+-")
        return cards.evidence(
            self.ends[component],
            self.words[component],
            n,
            signed=self.found.signed,
            above=explanation_html(self.explanations.get(plus), self.scores.get(plus)),
            below=explanation_html(self.explanations.get(minus), self.scores.get(minus)),
        )

    @cached_property
    def widget(self) -> Any:
        """The live view: choose a direction, read its card, decide and name it, by mouse or keys."""
        from caft_utils.interpret.explorer.widget import ExplorerWidget

        return ExplorerWidget(self)

    def _changed(self) -> None:
        """Decisions taken from code are seen in the widget too, if there is one."""
        if "widget" in self.__dict__:
            self.widget.draw()

    def _repr_mimebundle_(self, **kwargs) -> dict[str, Any]:
        """The widget for readers with a kernel, the cards for those without."""
        bundle = self.widget._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        return {**data, "text/html": self.html()}
