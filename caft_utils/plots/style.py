"""How every figure of the course looks: colours, symbols, axes, error bars, and the check of the rows.

Colours are Okabe and Ito's: any colour vision tells them apart, and a symbol always says the same thing a
second time. Labels are the reader's own text and are escaped, because plotly renders HTML in text.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # plotly takes a while to import; a figure pays for it when it is drawn
    from plotly.graph_objects import Figure

Rows = Sequence[Mapping]

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A7F00")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "triangle-down", "star", "pentagon", "hexagram")
# Conditions that return in many figures keep their colour throughout the course (first word of the label).
MEANING = {"caft": OKABE_ITO[0], "plain": OKABE_ITO[1], "secure": OKABE_ITO[2], "base": "#777777"}
INK, SOFT = "#222222", "#555555"
PERCENT_AXIS = {"range": [-4, 104], "dtick": 20}  # room for markers and intervals at both ends


def empty_figure(
    title: str, model: str, x_label: str, y_label: str, *, note: str = "", panels: Figure | None = None
) -> Figure:
    """An empty figure in the course's style; panels bring their own common axis titles."""
    import plotly.graph_objects as go

    subtitle = {"text": f"model: {html.escape(str(model))}{note}", "font": {"size": 12, "color": SOFT}}
    figure = go.Figure(panels).update_layout(
        template="none",
        font_size=13,
        font_color=INK,
        height=440,
        margin={"l": 72, "r": 20, "t": 84, "b": 60},
        title={"text": html.escape(title), "subtitle": subtitle, "x": 0, "xref": "paper", "font_size": 17},
    )
    axis = {
        "gridcolor": "#E6E6E6",
        "zeroline": False,
        "linecolor": "#999999",
        "ticks": "outside",
        "tickcolor": "#999999",
        "automargin": True,
        "title_font": {"size": 13},
    }
    for update, text in ((figure.update_xaxes, x_label), (figure.update_yaxes, y_label)):
        update(axis if panels else axis | {"title_text": text, "title_standoff": 10})
    return figure


def styles(rows: Rows, name: str) -> list[tuple[str, str, str]]:
    """(escaped label, colour, symbol) for each row: known conditions keep theirs, others get the rest."""
    labels = list(dict.fromkeys(str(row[name]) for row in rows))
    colours: dict[str, str] = {}
    for label in labels:
        known = MEANING.get(label.lower().replace(",", " ").split(" ")[0])
        if known and known not in colours.values():
            colours[label] = known
    free = [colour for colour in OKABE_ITO if colour not in colours.values()]
    others = [label for label in labels if label not in colours]
    colours |= {label: free[n % len(free)] for n, label in enumerate(others)}
    style = {
        label: (html.escape(label), colours[label], SYMBOLS[n % len(SYMBOLS)])
        for n, label in enumerate(labels)
    }
    return [style[str(row[name])] for row in rows]


def grouped(rows: Rows, series: str, x: str, y: str) -> list[tuple[str, str, str, list[Mapping]]]:
    """(label, colour, symbol, rows in the order of x), one for each series, first seen first."""
    rows = checked(rows, series, x, y)
    runs: dict[tuple[str, str, str], list[Mapping]] = {}
    for row, style in zip(rows, styles(rows, series)):
        runs.setdefault(style, []).append(row)
    return [(*style, sorted(run, key=lambda row: row[x])) for style, run in runs.items()]


def error_bars(run: Rows, name: str, colour: str, alpha: float = 1.0, scale: float = 100) -> dict | None:
    """Asymmetric error bars from the rows' low and high; None when no row has an interval."""
    low, high = f"{name}_low", f"{name}_high"
    if not any(low in row and high in row for row in run):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "width": 3,
        "thickness": 1.5,
        "color": transparent(colour, alpha),
        "array": [scale * (row.get(high, row[name]) - row[name]) for row in run],
        "arrayminus": [scale * (row[name] - row.get(low, row[name])) for row in run],
    }


def checked(rows: Rows, *names: str) -> list[Mapping]:
    if not rows:
        raise ValueError("there is nothing to draw: the list of rows is empty")
    for n, row in enumerate(rows):
        missing = [name for name in names if row.get(name) is None]
        if missing:
            raise ValueError(
                f"row {n} has no {', '.join(missing)}: every row needs {', '.join(names)}; "
                f"this one has {', '.join(map(str, row))}"
            )
    return list(rows)


def percent_text(row: Mapping, name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * row[name]:.1f}%{interval}"


def marker_style(symbol: str, colour: str, size: int | list[int]) -> dict:
    return {
        "symbol": symbol,
        "color": colour,
        "size": size,
        "opacity": 1,
        "line": {"width": 0.8, "color": "white"},
    }  # the rim keeps overlapping markers apart


def line_style(colour: str) -> dict:
    return {"color": colour, "width": 2}


def small(text: str) -> str:
    return f'<span style="font-size:11px;color:{SOFT}">{text}</span>'


def site(layer: int) -> str:
    return "embedding" if layer == -1 else str(layer)


def transparent(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
