"""The explorer: read components or latents, decide which express the unwanted concept, and name them.

In CAFT, a person reads directions and selects which ones to ablate. The explorer shows one direction at a
time with the text where it is most active, and records the decision. Without a kernel, the same cards are
plain HTML. (arXiv 2507.16795, section 3. Both sides of a component are shown because its sign is a
convention.)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import nn

from caft_utils.arguments import checked
from caft_utils.directions.subspace import Directions
from caft_utils.features import FeatureKey, Features, sides
from caft_utils.interpret.examples import Extremes, extreme_windows, logit_lens
from caft_utils.interpret.explorer import cards
from caft_utils.interpret.explorer.decisions import Decisions

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.interpret.explain import Explanation
    from caft_utils.interpret.score import Score

# The page without a kernel is stored in the notebook, so its size must have a limit.
MAX_STATIC_CARDS = 60


@checked
def explore(
    model: nn.Module,
    chats: Chats,
    features: Features,
    *,
    decisions: Decisions | None = None,
    explanations: Mapping[FeatureKey, Explanation] | None = None,
    scores: Mapping[FeatureKey, Mapping[str, Score]] | None = None,
    n: int = 8,
    width: int = 12,
    batch_size: int = 32,
    progress: bool = False,
) -> Explorer:
    """Collect the most activating windows of every direction, in one pass over `chats`, and show them.

    Args:
        features: `Directions`, or the `Latents` of sparse autoencoders.
        decisions: earlier decisions to start from, for example `Decisions(features, {1: [0, 3]})`.
        explanations, scores: from explainers and scorers, by (layer, index, "+" or "-").
        n: windows on each side. width: tokens in a window.

    Raises:
        IndexError, KeyError: a decision, explanation or score for a direction that `features` does not have.
    """
    extremes = extreme_windows(
        model, chats, features, n=n, width=width, batch_size=batch_size, progress=progress
    )
    lens_words = {
        (layer, i): logit_lens(model, chats.tokenizer, features.vector(layer, i)) for layer, i in extremes
    }
    given = {"decisions": decisions, "explanations": explanations, "scores": scores}
    return Explorer(features, extremes, lens_words, **given)


class Explorer(Decisions):
    """A widget in Jupyter and cards elsewhere, which also holds the reader's decisions and names.

    Args:
        extremes: from `extreme_windows`, by (layer, index).
        lens_words: from `logit_lens`, by (layer, index): the words raised and the words lowered.
        decisions: earlier decisions to start from.
        explanations, scores: by (layer, index, "+" or "-").

    Raises:
        IndexError, KeyError: a decision, explanation or score for a direction that `features` does not have.
    """

    def __init__(
        self,
        features: Features,
        extremes: Mapping[tuple[int, int], Extremes],
        lens_words: Mapping[tuple[int, int], tuple[list[str], list[str]]],
        *,
        decisions: Decisions | None = None,
        explanations: Mapping[FeatureKey, Explanation] | None = None,
        scores: Mapping[FeatureKey, Mapping[str, Score]] | None = None,
    ):
        decisions = decisions or Decisions(features)
        super().__init__(
            features,
            decisions.selection,
            discarded=decisions.discarded,
            names=decisions.names,
            folder=decisions.folder,
        )
        self.extremes, self.lens_words = extremes, lens_words
        self.explanations, self.scores = dict(explanations or {}), dict(scores or {})
        for layer, index, side in [*self.explanations, *self.scores]:
            self._checked(layer, index)
            if side not in sides(features):
                expected = " and ".join(sides(features))
                raise KeyError(f"the sides of a {features.kind} are {expected}, got {side!r}")

    def html(self, n: int = 4) -> str:
        """Return all cards, with n windows on each side. The selected cards are open, or else the first.

        If there are more than 60 cards, cards with a decision come first, because a notebook file stores the
        page.
        """
        selected = self.selection.order
        by_priority = sorted(self.components, key=lambda component: not self.state(*component))
        opened = selected or self.components[:1]
        included = sorted(by_priority[:MAX_STATIC_CARDS])
        return cards.page(
            [(self._card(component, n), component in opened) for component in included],
            note=cards.NOTES[self.features.two_sided],
            progress=self.progress,
            n_left_out=len(self.components) - len(included),
        )

    def card(self, layer: int, index: int) -> str:
        """Return one direction's card with all its windows and the style sheet."""
        return cards.single(self._card(self._checked(layer, index)))

    def article(self, layer: int, index: int) -> str:
        """Return one direction's card with all its windows, without the style sheet."""
        return cards.article(self._card(self._checked(layer, index)))

    def _card(self, component: tuple[int, int], n: int | None = None) -> cards.Card:
        layer, index = component
        plus, minus = (layer, index, "+"), (layer, index, "-")
        raised, lowered = self.lens_words[component]
        return cards.Card(
            title=cards.title(layer, index, self.features.kind),
            variance_share=self._variance_share(layer, index),
            name=self._names.get(component, ""),
            state=self.state(layer, index),
            extremes=self.extremes[component],
            raised=raised,
            lowered=lowered,
            two_sided=self.features.two_sided,
            n=n,
            explanations={"+": self.explanations.get(plus), "-": self.explanations.get(minus)},
            scores={"+": self.scores.get(plus), "-": self.scores.get(minus)},
        )

    def _variance_share(self, layer: int, index: int) -> float | None:
        if isinstance(self.features, Directions) and "explained_variance" in self.features.about:
            return self.features.about["explained_variance"][str(layer)][index]
        return None

    @cached_property
    def widget(self) -> Any:
        """The live view: choose a direction, read its card, decide and name it, by mouse or keys."""
        from caft_utils.interpret.explorer.widget import ExplorerWidget

        return ExplorerWidget(self, self.article)

    def _changed(self) -> None:
        """Show decisions made from code in the widget, if there is one."""
        if "widget" in self.__dict__:
            self.widget.draw()

    def _repr_mimebundle_(self, **kwargs) -> dict[str, Any]:
        """Return the widget for frontends with a kernel, and the cards for those without."""
        bundle = self.widget._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        return {**data, "text/html": self.html()}
