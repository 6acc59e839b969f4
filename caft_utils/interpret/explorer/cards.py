"""The card of one component or latent as HTML: what a reader needs in order to say what it means.

A component has two ends side by side, since its sign is a convention; a latent has one. Each end shows the
automatic explanation and its scores where there are any, the words it raises, and its windows. Tokens are
coloured by their value, red positive and blue negative, with the peak in bold and underlined (it may be a
space). Their colours are inline, so that notebooks that are not trusted (whose style sheets Jupyter drops)
still show them. All text of models, data and readers is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log1p
from pathlib import Path

from caft_utils.interpret.examples.max_activating import Extremes, Histogram, TextWindow

STYLE = Path(__file__).with_name("explorer.css").read_text(encoding="utf-8")
RED, BLUE = (
    (206, 66, 74),
    (58, 134, 200),
)  # of like lightness: told apart by the colour-blind, on white and black
MINUS = "\u2212"
WORDS = {"ablate": "\u2713 to ablate", "discard": "\u2715 discarded"}

NOTES = {
    True: "Each card is one direction. Tokens are coloured by the projection of their hidden state on it: "
    "red positive, blue negative, the peak in bold; hover for values. Which side is positive is a "
    "convention.",
    False: "Each card is one latent. Tokens are coloured by its activation, the peak in bold; hover for "
    "values.",
}


def page(inner: str) -> str:
    """Cards with their style sheet, to be put into any document."""
    return f"<style>{STYLE}</style><div class='caft'>{inner}</div>"


def title(layer: int, i: int, noun: str = "component") -> str:
    return f"{'Embedding' if layer < 0 else f'Layer {layer}'} \u00b7 {noun} {i}"


def header(heading: str, share: float | None = None, name: str = "", state: str = "") -> str:
    """Which one it is; `share` is its part of the variance, 0 to 1; `state` "ablate", "discard" or ""."""
    parts = [f"<b>{escape(heading)}</b>"]
    if share is not None:
        bar = f"<i><i style='width:{100 * share:.1f}%;height:7px'></i></i>"
        parts.append(f"<span class='share'>{bar}{100 * share:.1f} % of the variance</span>")
    if name:
        parts.append(f"<span>\u201c{escape(name)}\u201d</span>")
    if state:
        parts.append(f"<span class='state {state}'>{WORDS[state]}</span>")
    return f"<header>{''.join(parts)}</header>"


def evidence(
    ends: Extremes,
    words: tuple[Sequence[str], Sequence[str]],
    n: int | None = None,
    *,
    signed: bool = True,
    above: str = "",
    below: str = "",
) -> str:
    """Histogram and windows, n at each end (all by default).

    words: (raised, lowered) by the logit lens. signed: both ends are shown, side by side. above, below: what
    `scorecard.reading` made of the explanations of the positive and the negative end.
    """
    raised, lowered = words
    shown = ends.top + ends.bottom if signed else ends.top
    scale = max((abs(v) for window in shown for v in window.activations), default=0.0) or 1.0
    push = f"pushes towards {_listed(raised)}"
    if not signed:
        push += f" \u00b7 away from {_listed(lowered)}"
        end = _end("high", "Where it is active", push, ends.top[:n], scale, above)
        return f"{_histogram(ends.histogram, signed)}<div class='ends single'>{end}</div>"
    pull = f"pushes towards {_listed(lowered)}"
    low = _end("low", "Negative end", pull, ends.bottom[:n], scale, below)
    high = _end("high", "Positive end", push, ends.top[:n], scale, above)
    return f"{_histogram(ends.histogram, signed)}<div class='ends'>{low}{high}</div>"


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f"<em>{escape(word)}</em>" for word in words)


def _end(
    side: str, heading: str, words: str, windows: Sequence[TextWindow], scale: float, reading: str
) -> str:
    rows = "".join(
        f"<div class='window'><span title='row {window.row}, token {window.position}'>"
        f"{number(window.peak_activation)}</span><p>{_tokens(window, scale)}</p></div>"
        for window in windows
    )
    rows = rows or "<div class='words'>no token of this text activates it</div>"
    return (
        f"<div class='{side}'><div><h4>{heading}</h4>{reading}</div><div class='words'>{words}</div>"
        f"<div>{rows}</div></div>"
    )


def _tokens(window: TextWindow, scale: float) -> str:
    parts = []
    for place, (token, value) in enumerate(zip(window.tokens, window.activations)):
        r, g, b = RED if value > 0 else BLUE
        strength = 0.65 * min(1.0, abs(value) / scale)  # text stays readable on the strongest colour
        text = escape(token.replace("\n", "\u23ce").replace("\t", "\u21e5"))
        text = f"<b>{text}</b>" if place == window.peak else text
        style = f"background-color:rgba({r},{g},{b},{strength:.2f})"
        parts.append(f"<span style='{style}' title='{number(value)}'>{text}</span>")
    return "".join(parts)


def _histogram(histogram: Histogram, signed: bool) -> str:
    """Bars by the logarithm of counts, so that rare extremes are seen beside the many tokens near zero."""
    bins, half = len(histogram.counts), len(histogram.counts) // 2
    first = 0 if signed else half  # a latent's values are never below zero
    used = max(
        (half - i if i < half else i - half + 1 for i, c in enumerate(histogram.counts) if c), default=half
    )
    width = histogram.edge * 2 / bins
    left = half - used if signed else half
    step, highest = 1000 / (half + used - left), log1p(max(histogram.counts)) or 1.0
    bars = []
    for i, count in enumerate(histogram.counts):
        if count and i >= first:
            x, tall, color = (i - left) * step, 40 * log1p(count) / highest, RED if i >= half else BLUE
            range_ = f"{number((i - half) * width)} to {number((i - half + 1) * width)}"
            bars.append(
                f"<rect x='{x:.1f}' y='{40 - tall:.1f}' width='{step - 2:.1f}' height='{tall:.1f}' "
                f"fill='rgb{color}' fill-opacity='0.8'><title>{count} tokens, {range_}</title></rect>"
            )
    what = "projection" if signed else "activation"
    right = used * width
    return (
        f"<svg viewBox='0 0 1000 40' preserveAspectRatio='none' role='img' aria-label='histogram of {what}s'>"
        f"{''.join(bars)}<rect x='0' y='39.5' width='1000' height='0.5' fill='#8a929d'/></svg>"
        f"<div class='axis'><span>{number(-right) if signed else 0}</span><span>{what} of all tokens "
        f"(height: logarithm of their number)</span><span>{number(right)}</span></div>"
    )


def number(value: float) -> str:
    """Three digits with a sign; scientific notation would not line up."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:+.{digits}f}".replace("-", MINUS)
