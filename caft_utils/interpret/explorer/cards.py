"""Render the card of one component or latent as HTML, with everything that a reader needs to interpret it.

A component has two sides next to each other, because its sign is a convention. A latent has one side. Each
side shows the explanation and its scores if there are any, the words that it promotes, and its windows.
Tokens are coloured by their activation, red positive and blue negative, with the peak in bold and underlined
(it may be a space). The colours are inline: Jupyter drops the style sheets of notebooks that are not trusted.

The templates (templates/*.html.j2) are rendered with autoescape, so text from models, data and readers never
becomes markup. The filter `printable` replaces characters that no page can hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import isfinite, log1p
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from caft_utils.formatting import printable
from caft_utils.interpret.examples.histogram import Histogram
from caft_utils.interpret.examples.max_activating import Extremes
from caft_utils.interpret.examples.text_window import TextWindow

if TYPE_CHECKING:
    from caft_utils.interpret.explain import Explanation
    from caft_utils.interpret.score import Score

HERE = Path(__file__).parent
STYLE = (HERE / "explorer.css").read_text(encoding="utf-8")
# Colours of similar lightness that colour-blind readers can distinguish, on white and on black.
RED, BLUE = (206, 66, 74), (58, 134, 200)
MAX_OPACITY = 0.65  # keeps text legible on the strongest colour
MINUS = "\u2212"
STATE_LABELS = {"ablate": "\u2713 to ablate", "discard": "\u2715 discarded"}

NOTES = {
    True: "Each card is one direction. Tokens are coloured by the projection of their hidden state on it: "
    "red positive, blue negative, the peak in bold; hover for values. Which side is positive is a "
    "convention.",
    False: "Each card is one latent. Tokens are coloured by its activation, the peak in bold; hover for "
    "values.",
}


@dataclass(frozen=True)
class Card:
    """What one card shows.

    variance_share: 0 to 1. state: "ablate", "discard" or "". raised, lowered: words by the logit lens.
    two_sided: show both sides. n: windows on each side, all by default. explanations, scores: by side.
    """

    title: str
    extremes: Extremes
    raised: Sequence[str]
    lowered: Sequence[str]
    two_sided: bool = True
    variance_share: float | None = None
    name: str = ""
    state: str = ""
    n: int | None = None
    explanations: Mapping[str, Explanation | None] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, Score] | None] = field(default_factory=dict)

    @property
    def state_label(self) -> str:
        return STATE_LABELS.get(self.state, "")

    @property
    def histogram(self) -> HistogramBars:
        return HistogramBars.of(self.extremes.histogram, self.two_sided)

    @property
    def sides(self) -> list[CardSide]:
        """The sides from left to right."""
        if not self.two_sided:
            return [
                self._side("+", "high", "Where it is active", self.extremes.top, self.raised, self.lowered)
            ]
        return [
            self._side("-", "low", "Negative end", self.extremes.bottom, self.lowered),
            self._side("+", "high", "Positive end", self.extremes.top, self.raised),
        ]

    def _side(
        self,
        sign: str,
        css_class: str,
        heading: str,
        windows: Sequence[TextWindow],
        towards: Sequence[str],
        away: Sequence[str] | None = None,
    ) -> CardSide:
        shown = self.extremes.top + (self.extremes.bottom if self.two_sided else [])
        largest = max((abs(value) for window in shown for value in window.activations), default=0.0) or 1.0
        explanation, scores = self.explanations.get(sign), self.scores.get(sign)
        windows = [(window, _tokens(window, largest)) for window in windows[: self.n]]
        return CardSide(css_class, heading, explanation, scores or {}, towards, away, windows)


class Token(NamedTuple):
    """A token as it is drawn: its text on a background whose colour shows the activation."""

    text: str
    activation: float
    color: str
    is_peak: bool


class CardSide(NamedTuple):
    """One side of a card. towards, away: words that it makes more and less likely. away=None: not shown."""

    css_class: str
    heading: str
    explanation: Explanation | None
    scores: Mapping[str, Score]
    towards: Sequence[str]
    away: Sequence[str] | None
    windows: list[tuple[TextWindow, list[Token]]]


class Bar(NamedTuple):
    """One bar of a histogram. Its title is shown when the pointer rests on it."""

    x: float
    width: float
    height: float
    color: str
    title: str


class HistogramBars(NamedTuple):
    """A histogram drawn on a canvas of 1000 x 40, with the logarithm of counts as height.

    On a linear scale, rare extremes would be invisible beside the many tokens near zero.
    """

    quantity: str
    bars: list[Bar]
    left: str
    right: str

    @classmethod
    def of(cls, histogram: Histogram, two_sided: bool) -> HistogramBars:
        n_bins, half = len(histogram.counts), len(histogram.counts) // 2
        first = 0 if two_sided else half  # a latent's activations are never below zero
        # Bins from zero to the outermost one with a count, on either side.
        used = max(
            (half - i if i < half else i - half + 1 for i, c in enumerate(histogram.counts) if c),
            default=half,
        )
        bin_width = histogram.edge * 2 / n_bins
        left = half - used if two_sided else half
        step, highest = 1000 / (half + used - left), log1p(max(histogram.counts)) or 1.0
        bars = [
            Bar(
                x=(i - left) * step,
                width=step - 2,
                height=40 * log1p(count) / highest,
                color=f"rgb{RED if i >= half else BLUE}",
                title=f"{count} tokens, {format_activation((i - half) * bin_width)} to "
                f"{format_activation((i - half + 1) * bin_width)}",
            )
            for i, count in enumerate(histogram.counts)
            if count and i >= first
        ]
        right = used * bin_width
        return cls(
            "projection" if two_sided else "activation",
            bars,
            format_activation(-right) if two_sided else "0",
            format_activation(right),
        )


def page(cards: Sequence[tuple[Card, bool]], *, note: str, progress: str, n_left_out: int) -> str:
    """Return cards with their style sheet, for use in any document; `cards` holds (card, is open)."""
    return _render("page.html.j2", cards=cards, note=note, progress=progress, n_left_out=n_left_out)


def single(card: Card) -> str:
    """Return one card with the style sheet."""
    return _render("single.html.j2", card=card)


def article(card: Card) -> str:
    """Return one card without the style sheet."""
    return _render("article.html.j2", card=card)


def title(layer: int, index: int, kind: str = "component") -> str:
    """Return the title of a card, for example "Layer 2 \u00b7 component 1"."""
    return f"{'Embedding' if layer < 0 else f'Layer {layer}'} \u00b7 {kind} {index}"


def format_activation(value: float) -> str:
    """Format an activation with three digits and a sign. Scientific notation would not line up."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:+.{digits}f}".replace("-", MINUS)


def format_score(value: float) -> str:
    """Format a score with two decimals and a minus sign as wide as a digit."""
    return f"{value:.2f}".replace("-", MINUS)


def _tokens(window: TextWindow, largest: float) -> list[Token]:
    tokens = []
    for position, (text, value) in enumerate(zip(window.tokens, window.activations)):
        r, g, b = RED if value > 0 else BLUE
        opacity = MAX_OPACITY * min(1.0, abs(value) / largest)
        text = text.replace("\n", "\u23ce").replace("\t", "\u21e5")
        tokens.append(Token(text, value, f"rgba({r},{g},{b},{opacity:.2f})", position == window.peak))
    return tokens


def _score_summary(name: str, score: Score) -> str:
    """Return all figures of a score, for a tooltip."""
    value, low, high = map(format_score, (score.value, score.low, score.high))
    summary = f"{name}: {value}, 95 % interval {low} to {high}"
    extra = "".join(f", {key.replace('_', ' ')} {format_score(value)}" for key, value in score.extra.items())
    return f"{summary}, n = {score.n}{extra}"


def _fits_scale(score: Score) -> bool:
    """Return whether a score can be drawn on the scale from 0 to 1."""
    return 0 <= score.low <= score.value <= score.high <= 1


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        format_activation=format_activation, format_score=format_score, score_summary=_score_summary
    )
    environment.tests.update(finite=isfinite, fits_scale=_fits_scale)
    environment.globals["style"] = STYLE
    return environment


def _render(template: str, **context: Any) -> str:
    return printable(_environment().get_template(template).render(**context))
