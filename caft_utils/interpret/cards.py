"""A component's card as HTML: its share of the variance, the words it raises, and the text at its two ends.

Tokens are coloured by projection, red positive and blue negative, with the peak in bold and
underlined (it may be a space). Colours are inline,
so that notebooks that are not trusted (whose style sheets Jupyter drops) still show them. All text of models,
data and readers is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from caft_utils.interpret.windows import Ends, Histogram, Window

RED, BLUE = (178, 24, 43), (33, 102, 172)  # the ends of ColorBrewer's RdBu, safe for the colour-blind
MINUS = "\u2212"

STYLE = """<style>
.caft {max-width: 1080px; background: #fff; color: #23272e; color-scheme: light; padding: 2px;
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif}
.caft details, .caft article {border: 1px solid #e3e6ea; border-radius: 8px; margin: 0 0 8px;
  padding: 9px 18px}
.caft summary {cursor: pointer}
.caft header {display: inline-flex; flex-wrap: wrap; align-items: baseline; gap: 4px 14px;
  width: calc(100% - 22px)}
.caft article header {width: 100%}
.caft header b {font-size: 17px; font-weight: 650}
.caft .share {color: #68707c; font-variant-numeric: tabular-nums}
.caft .share i {display: inline-block; width: 90px; height: 7px; border-radius: 4px; background: #eceef1;
  margin-right: 8px; overflow: hidden; vertical-align: 1px}
.caft .share i i {background: #68707c; border-radius: 4px 0 0 4px; margin: 0; vertical-align: top}
.caft .tick {margin-left: auto; background: #23272e; color: #fff; border-radius: 11px; padding: 0 10px;
  font-size: 12.5px}
.caft svg {display: block; width: 100%; height: 44px; margin: 10px 0 2px}
.caft .axis {display: flex; justify-content: space-between; color: #68707c; font-size: 11.5px;
  margin-bottom: 8px; font-variant-numeric: tabular-nums}
.caft .ends {display: grid; grid-template-columns: 1fr 1fr; gap: 0 30px}
.caft h4 {margin: 4px 0 2px; font-size: 13.5px; font-weight: 650}
.caft .low h4 {color: rgb(33, 102, 172)}
.caft .high h4 {color: rgb(178, 24, 43)}
.caft .words {color: #68707c; font-size: 12.5px; min-height: 1.5em; margin-bottom: 6px}
.caft .words em {color: #23272e; font-style: normal}
.caft .window {display: grid; grid-template-columns: 4em 1fr; gap: 10px; border-top: 1px solid #eff1f3;
  padding: 5px 0; line-height: 1.65}
.caft .window > span {color: #68707c; text-align: right; font-variant-numeric: tabular-nums;
  font-size: 12.5px; line-height: 23px}
.caft .window p {margin: 0; white-space: pre-wrap; overflow-wrap: anywhere}
.caft .window p span {border-radius: 2px; padding: 2px 0}
.caft .window p b {box-shadow: inset 0 -2px #23272e}
.caft .note {color: #68707c; font-size: 12.5px; margin: 2px 2px 10px}
@media (max-width: 640px) {.caft .ends {grid-template-columns: 1fr}}
</style>"""

NOTE = (
    "Each card is one direction. Tokens are coloured by the projection of their hidden state on it: red "
    "positive, blue negative, the peak in bold; hover for values. Which side is positive is a convention."
)


def page(inner: str) -> str:
    """Cards with their style sheet, to be put into any document."""
    return f"{STYLE}<div class='caft'>{inner}</div>"


def header(layer: int, i: int, share: float | None = None, name: str = "", ticked: bool = False) -> str:
    """Which component it is; `share` is its part of the variance, 0 to 1."""
    parts = [f"<b>{'Embedding' if layer < 0 else f'Layer {layer}'} \u00b7 component {i}</b>"]
    if share is not None:
        bar = f"<i><i style='width:{100 * share:.1f}%;height:7px'></i></i>"
        parts.append(f"<span class='share'>{bar}{100 * share:.1f} % of the variance</span>")
    if name:
        parts.append(f"<span>\u201c{escape(name)}\u201d</span>")
    if ticked:
        parts.append("<span class='tick'>\u2713 to ablate</span>")
    return f"<header>{''.join(parts)}</header>"


def evidence(ends: Ends, words: tuple[Sequence[str], Sequence[str]], n: int | None = None) -> str:
    """Histogram, and both ends side by side with n windows each (all by default); `words` (raised,
    lowered)."""
    raised, lowered = words
    scale = max(abs(v) for window in ends.top + ends.bottom for v in window.values) or 1.0
    low = _end("low", "Negative end", lowered, ends.bottom[:n], scale)
    high = _end("high", "Positive end", raised, ends.top[:n], scale)
    return f"{_histogram(ends.histogram)}<div class='ends'>{low}{high}</div>"


def _end(side: str, title: str, words: Sequence[str], windows: Sequence[Window], scale: float) -> str:
    towards = ", ".join(f"<em>{escape(word)}</em>" for word in words)
    rows = "".join(
        f"<div class='window'><span title='row {window.row}, token {window.position}'>"
        f"{_number(window.value)}</span><p>{_tokens(window, scale)}</p></div>"
        for window in windows
    )
    return (
        f"<div class='{side}'><h4>{title}</h4><div class='words'>pushes towards {towards}</div>{rows}</div>"
    )


def _tokens(window: Window, scale: float) -> str:
    parts = []
    for place, (token, value) in enumerate(zip(window.tokens, window.values)):
        r, g, b = RED if value > 0 else BLUE
        strength = 0.6 * min(1.0, abs(value) / scale)  # dark text stays readable on the strongest colour
        text = escape(token.replace("\n", "\u23ce").replace("\t", "\u21e5"))
        text = f"<b>{text}</b>" if place == window.peak else text
        style = f"background-color:rgba({r},{g},{b},{strength:.2f})"
        parts.append(f"<span style='{style}' title='{_number(value)}'>{text}</span>")
    return "".join(parts)


def _histogram(histogram: Histogram) -> str:
    """Bars by square root of counts, so that rare extremes can be seen beside the many tokens near zero."""
    bins, half = len(histogram.counts), len(histogram.counts) // 2
    used = max(
        (half - i if i < half else i - half + 1 for i, c in enumerate(histogram.counts) if c), default=half
    )
    step, highest = 500 / used, max(histogram.counts) ** 0.5 or 1.0
    bars = []
    for i, count in enumerate(histogram.counts):
        if count:
            x, tall, color = (i - half + used) * step, 40 * count**0.5 / highest, RED if i >= half else BLUE
            bars.append(
                f"<rect x='{x:.1f}' y='{40 - tall:.1f}' width='{step - 2:.1f}' height='{tall:.1f}' "
                f"fill='rgb{color}' fill-opacity='0.55'><title>{count} tokens</title></rect>"
            )
    edge = histogram.edge * 2 * used / bins
    return (
        "<svg viewBox='0 0 1000 40' preserveAspectRatio='none' role='img' aria-label='distribution of "
        f"projections'>{''.join(bars)}<rect x='0' y='39.5' width='1000' height='0.5' fill='#68707c'/></svg>"
        f"<div class='axis'><span>{_number(-edge)}</span><span>projection of all tokens (height: square root "
        f"of their number)</span><span>{_number(edge)}</span></div>"
    )


def _number(value: float) -> str:
    """Three digits with a sign; scientific notation would not line up."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:+.{digits}f}".replace("-", MINUS)
