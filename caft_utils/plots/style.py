"""The common style of all figures: colours, symbols, axes, error bars, and the check of the rows.

The colours are Okabe and Ito's, which remain distinct with colour-blind vision; a symbol repeats what each
colour says. Every text of the caller passes through `escaped`, because plotly renders some HTML in titles,
axes, ticks, legends and hover texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

from caft_utils.arguments import number
from caft_utils.formatting import format_rate, printable

if TYPE_CHECKING:  # plotly is slow to import, so each figure imports it when it is drawn
    from pandas import DataFrame
    from plotly.graph_objects import Figure

    Rows = DataFrame | Sequence[Mapping[str, Any]]

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A7F00")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "triangle-down", "star", "pentagon", "hexagram")
# Conditions that appear in many figures keep one colour throughout; the key is the first word of a label.
CONDITION_COLOURS = {
    "caft": OKABE_ITO[0],
    "plain": OKABE_ITO[1],
    "secure": OKABE_ITO[2],
    "random": OKABE_ITO[3],
    "base": "#777777",
}
INK, SOFT = "#222222", "#555555"
PERCENT_AXIS = {"range": [-4, 104], "dtick": 20}  # room for markers and intervals at both ends


def escaped(text: object) -> str:
    """Return a text that plotly draws as it is: no markup, no formula and no field of a hover template.

    Quotes stay, because plotly puts no text into attributes and would draw the entity of a quote.
    """
    text = printable(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("%{", "%&#123;").replace("$", "&#36;")


def empty_figure(
    title: str, model: str, x_label: str, y_label: str, *, note: str = "", panels: Figure | None = None
) -> Figure:
    """Return an empty figure in the common style. `panels` are subplots with their own common axis titles."""
    import plotly.graph_objects as go

    subtitle = {"text": f"model: {escaped(model)}{note}", "font": {"size": 12, "color": SOFT}}
    figure = go.Figure(panels).update_layout(
        template="none",
        font_size=13,
        font_color=INK,
        height=440,
        margin={"l": 72, "r": 20, "t": 84, "b": 60},
        title={"text": escaped(title), "subtitle": subtitle, "x": 0, "xref": "paper", "font_size": 17},
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
        update(axis if panels else axis | {"title_text": escaped(text), "title_standoff": 10})
    return figure


def styles(rows: Sequence[Mapping], name: str) -> list[tuple[str, str, str]]:
    """Return (escaped label, colour, symbol) for each row.

    The conditions of CONDITION_COLOURS have their own colours. Other labels get the other colours, and a
    condition's only where none else is left. A label that is the condition's name takes its colour before one
    that only begins with it, such as "plain, lr".
    """
    labels = list(dict.fromkeys(str(row[name]) for row in rows))
    colours: dict[str, str] = {}
    for label in sorted(labels, key=lambda label: label.lower() not in CONDITION_COLOURS):
        known = CONDITION_COLOURS.get(label.lower().replace(",", " ").split(" ")[0])
        if known and known not in colours.values():
            colours[label] = known
    free = [colour for colour in OKABE_ITO if colour not in colours.values()]
    free.sort(key=lambda colour: colour in CONDITION_COLOURS.values())
    others = [label for label in labels if label not in colours]
    colours |= {label: free[n % len(free)] for n, label in enumerate(others)}
    style = {
        label: (escaped(label), colours[label], SYMBOLS[n % len(SYMBOLS)]) for n, label in enumerate(labels)
    }
    return [style[str(row[name])] for row in rows]


def grouped(rows: Rows, series: str, x: str, y: str) -> list[tuple[str, str, str, list[Mapping]]]:
    """Return (label, colour, symbol, rows sorted by x) for each series, in order of first appearance."""
    rows = as_records(rows, series, numbers=(x, y))
    runs: dict[tuple[str, str, str], list[Mapping]] = {}
    for row, style in zip(rows, styles(rows, series)):
        runs.setdefault(style, []).append(row)
    return [(*style, sorted(run, key=lambda row: row[x])) for style, run in runs.items()]


def error_bars(
    run: Sequence[Mapping], name: str, colour: str, alpha: float = 1.0, scale: float = 100
) -> dict | None:
    """Return asymmetric error bars from the rows' low and high, or None if no row has an interval."""
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


def as_records(rows: Rows, *names: str, numbers: Sequence[str] = ()) -> list[Mapping]:
    """Return the rows of a list or a DataFrame as dicts that have a value for each of `names` and `numbers`.

    An entry that is None or NaN counts as missing.

    Args:
        numbers: entries that must be finite numbers, as must their ends <name>_low and <name>_high.

    Raises:
        ValueError: there are no rows, a row lacks an entry, or an entry is no number.
    """
    names = (*names, *numbers)
    if hasattr(rows, "to_dict"):  # a DataFrame, which has NaN where a row has no entry
        rows = [{k: v for k, v in row.items() if not _missing(v)} for row in rows.to_dict("records")]
    if not rows:
        raise ValueError("there is nothing to draw: there are no rows")
    for n, row in enumerate(rows):
        missing = [name for name in names if _missing(row.get(name))]
        if missing:
            raise ValueError(
                f"row {n} has no {', '.join(missing)}: every row needs {', '.join(names)}; "
                f"this one has {', '.join(map(str, row))}"
            )
        for name in (f"{name}{end}" for name in numbers for end in ("", "_low", "_high")):
            if not _missing(row.get(name)):
                number(f"row {n}, {name}", row[name])
    return list(rows)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and isnan(value))


def rate_text(row: Mapping, name: str) -> str:
    """Return a row's rate as text, with its interval where the row has one."""
    return format_rate(row[name], row.get(f"{name}_low"), row.get(f"{name}_high"))


def marker_style(symbol: str, colour: str, size: int | list[int]) -> dict:
    """Return plotly's settings of a marker. A white rim keeps overlapping markers apart."""
    return {
        "symbol": symbol,
        "color": colour,
        "size": size,
        "opacity": 1,
        "line": {"width": 0.8, "color": "white"},
    }


def line_style(colour: str) -> dict:
    """Return plotly's settings of a line."""
    return {"color": colour, "width": 2}


def small(text: str) -> str:
    """Return HTML of small, muted text."""
    return f'<span style="font-size:11px;color:{SOFT}">{text}</span>'


def site_name(layer: int) -> str:
    """Return the name of a site in the residual stream; layer -1 is the embedding's output."""
    return "embedding" if layer == -1 else escaped(layer)


def transparent(colour: str, alpha: float) -> str:
    """Return a #RRGGBB colour as CSS rgba text."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
