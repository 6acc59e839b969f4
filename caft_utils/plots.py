"""The course's figures: plain rows in, one plotly figure out.

Every function takes a list of dicts (what `Comparison.table()` or a results file holds), never a model, so
a figure can be drawn again from a record. Rates are fractions in [0, 1], shown in percent; an interval is the
pair `<name>_low`, `<name>_high` of the same row, drawn wherever it is there. Colours are Okabe and Ito's: any
colour vision tells them apart, and a symbol always says the same thing a second time. Labels are the reader's
own text and are escaped, because plotly renders HTML in text.
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
TASK = "narrow task learned (% of held-out answers)"
WANTED = " · wanted: bottom right ↘"
MISALIGNED = "misaligned (% of coherent answers elsewhere)"


def tradeoff(
    rows: Rows,
    *,
    model: str,
    x: str = "task",
    y: str = "misaligned",
    x_label: str = TASK,
    y_label: str = MISALIGNED,
    title: str = "Narrow task against emergent misalignment",
) -> Figure:
    """The trade-off plane: one point a condition, its interval in both directions. Wanted: bottom right.

    rows: {"label", x, y} and, for error bars, {x}_low, {x}_high, {y}_low, {y}_high; fractions in [0, 1].
    The numbers stand in the legend too: differences near the floor are small beside the whole plane.
    """
    rows = _checked(rows, "label", x, y)
    figure = _figure(title, model, x_label, y_label, note=WANTED)
    styled = [(n, row, *style) for n, (row, style) in enumerate(zip(rows, _styles(rows, "label")))]
    styled.sort(key=lambda item: item[3] in MEANING.values())  # the course's own conditions last, so on top
    for n, row, label, colour, symbol in styled:
        numbers = f"{100 * row[y]:.1f}% at {100 * row[x]:.1f}%"
        figure.add_scatter(
            x=[100 * row[x]],
            y=[100 * row[y]],
            mode="markers",
            marker=_marker(symbol, colour, 9),
            error_x=_bars([row], x, colour),
            error_y=_bars([row], y, colour),
            name=f"{label}<br>{_small(numbers)}",
            legendrank=n,
            hovertemplate=f"{label}<br>x: {_percent(row, x)}<br>y: {_percent(row, y)}<extra></extra>",
        )
    figure.update_xaxes(**PERCENT_AXIS).update_yaxes(**PERCENT_AXIS)
    legend = {"title": {"text": _small(" at ".join(name.split(" (")[0] for name in (y_label, x_label)))}}
    return figure.update_layout(showlegend=True, legend=legend, height=500)


def frontier(
    rows: Rows,
    *,
    model: str,
    x: str = "task",
    y: str = "misaligned",
    matched: float | None = None,
    x_label: str = TASK,
    y_label: str = MISALIGNED,
    title: str = "Stopped early, and with other learning rates",
) -> Figure:
    """Whole training runs in the trade-off plane: a panel for each setting, in it a curve for each method.

    rows: {"method", "setting", "step", x, y}, intervals as in `tradeoff`; points are joined by step, the end
    is drawn large. All panels share both axes, so any two points of the figure can be compared.
    matched: an in-distribution score (fraction) at which to compare the methods, drawn as a vertical line.
    """
    from plotly.subplots import make_subplots

    rows = _checked(rows, "method", "setting", "step", x, y)
    settings = list(dict.fromkeys(str(row["setting"]) for row in rows))
    columns = min(4, len(settings))
    lines = -(-len(settings) // columns)
    panels = make_subplots(
        lines,
        columns,
        shared_xaxes="all",
        shared_yaxes="all",
        x_title=x_label,
        y_title=y_label,
        horizontal_spacing=0.03,
        vertical_spacing=0.24 / lines,
        subplot_titles=[html.escape(setting) for setting in settings],
    )
    figure = _figure(title, model, x_label, y_label, note=WANTED, panels=panels)
    for method, colour, symbol in dict.fromkeys(_styles(rows, "method")):
        own = [row for row in rows if html.escape(str(row["method"])) == method]
        first = settings.index(str(own[0]["setting"]))
        for n, setting in enumerate(settings):
            run = sorted((row for row in own if str(row["setting"]) == setting), key=lambda row: row["step"])
            figure.add_scatter(
                x=[100 * row[x] for row in run],
                y=[100 * row[y] for row in run],
                mode="lines+markers",
                marker=_marker(symbol, colour, [6] * (len(run) - 1) + [12]),
                line=_line(colour),
                error_x=_bars(run, x, colour, 0.45),
                error_y=_bars(run, y, colour, 0.45),
                name=method,
                legendgroup=method,
                showlegend=n == first,
                row=n // columns + 1,
                col=n % columns + 1,
                customdata=[[row["step"], _percent(row, x), _percent(row, y)] for row in run],
                hovertemplate=f"{method}, {html.escape(setting)}, step %{{customdata[0]}}"
                "<br>x: %{customdata[1]}<br>y: %{customdata[2]}<extra></extra>",
            )
    figure.update_xaxes(**PERCENT_AXIS | {"dtick": 50}).update_yaxes(**PERCENT_AXIS)
    if matched is not None:
        figure.add_vline(100 * matched, line={"color": INK, "dash": "dot", "width": 1})
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="lines",
            line={"color": INK, "dash": "dot", "width": 1},
            name=f"compare here: {100 * matched:.0f}% of the task",
        )
    figure.update_annotations(font_size=13)
    legend = {"orientation": "h", "x": 0, "y": -0.2 / lines, "yanchor": "top"}
    return figure.update_layout(legend=legend, height=130 + 310 * lines, margin_t=110)


def rates(
    rows: Rows,
    *,
    model: str,
    value: str = "misaligned",
    label: str = MISALIGNED,
    title: str = "Misaligned answers, by condition",
) -> Figure:
    """One line a condition: a point and its interval, the numbers beside the name.

    rows: {"label", value[, {value}_low, {value}_high]}, fractions.
    """
    rows = _checked(rows, "label", value)
    figure = _figure(title, model, label, "")
    for row, (name, colour, symbol) in zip(rows, _styles(rows, "label")):
        figure.add_scatter(
            x=[100 * row[value]],
            y=[f"{name}<br>{_small(_percent(row, value))}"],
            mode="markers",
            showlegend=False,
            marker=_marker(symbol, colour, 11),
            error_x=_bars([row], value, colour),
            hovertemplate=f"{name}: {_percent(row, value)}<extra></extra>",
        )
    figure.update_yaxes(range=[len(rows) - 0.5, -0.5], showgrid=False).update_xaxes(**PERCENT_AXIS)
    return figure.update_layout(height=150 + 42 * len(rows))


def training_curve(
    rows: Rows,
    *,
    model: str,
    value: str = "loss",
    percent: bool = False,
    label: str = "loss (nats per answer token)",
    title: str = "What fine-tuning learns",
) -> Figure:
    """A quantity over the steps of fine-tuning. rows: {"series", "step", value[, {value}_low, {value}_high]}.

    percent: values are fractions, shown in percent on a fixed 0..100 axis (task score, misaligned answers).
    """
    figure = _figure(title, model, "optimizer step", label)
    scale = 100 if percent else 1
    for name, colour, symbol, run in _curves(rows, "series", "step", value):
        figure.add_scatter(
            x=[row["step"] for row in run],
            y=[scale * row[value] for row in run],
            name=name,
            mode="lines+markers" if len(run) <= 40 else "lines",
            line=_line(colour),
            marker=_marker(symbol, colour, 8),
            error_y=_bars(run, value, colour, 0.45, scale),
            hovertemplate="%{y:.3g}",
        )
    figure.update_yaxes(PERCENT_AXIS if percent else {"rangemode": "tozero"})
    return figure.update_layout(hovermode="x unified", showlegend=True)


def norms_by_layer(
    rows: Rows,
    *,
    model: str,
    label: str = "median length of the residual vector",
    title: str = "The residual stream by depth",
) -> Figure:
    """Lengths of residual vectors by layer. rows: {"series", "layer", "norm"[, "norm_low", "norm_high"]}.

    Layer -1 is the embedding's output. The band is the range the caller put in low and high (say, 5 to 95%).
    """
    figure = _figure(title, model, "site: output of decoder block", label)
    for name, colour, symbol, run in _curves(rows, "series", "layer", "norm"):
        layers = [row["layer"] for row in run]
        if all("norm_low" in row and "norm_high" in row for row in run):
            upper, lower = [row["norm_high"] for row in run], [row["norm_low"] for row in run]
            figure.add_scatter(
                x=layers + layers[::-1],
                y=upper + lower[::-1],
                fill="toself",
                mode="lines",
                fillcolor=_transparent(colour, 0.15),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=name,
            )
        figure.add_scatter(
            x=layers,
            y=[row["norm"] for row in run],
            mode="lines+markers",
            line=_line(colour),
            marker=_marker(symbol, colour, 8),
            name=name,
            legendgroup=name,
            hovertemplate="%{y:.3g}",
        )
    sites = sorted({row["layer"] for row in rows})
    figure.update_xaxes(tickvals=sites, ticktext=[_site(layer) for layer in sites])
    return figure.update_yaxes(rangemode="tozero").update_layout(showlegend=True)


def spectrum(
    rows: Rows,
    *,
    model: str,
    label: str = "explained variance (% of the layer's total)",
    title: str = "How much of the difference each component explains",
) -> Figure:
    """Explained variance of each principal component, a curve a layer. rows: {"layer", "component", "share"}.

    share: fraction of the variance of (tuned - base) activations at that layer; components count from 0.
    """
    figure = _figure(title, model, "principal component of the activation difference", label)
    for layer, colour, symbol, run in _curves(rows, "layer", "component", "share"):
        figure.add_scatter(
            x=[row["component"] for row in run],
            y=[100 * row["share"] for row in run],
            mode="lines+markers",
            line=_line(colour),
            marker=_marker(symbol, colour, 8),
            name=f"layer {_site(int(layer))}",
            hovertemplate="component %{x}: %{y:.1f}%",
        )
    return figure.update_xaxes(dtick=1).update_yaxes(rangemode="tozero").update_layout(showlegend=True)


def cosines(
    rows: Rows,
    *,
    model: str,
    target: str = "the true persona direction",
    title: str = "Which component is the concept?",
) -> Figure:
    """|cosine| of every found component with a known direction: layer by component, the value in each square.

    rows: {"layer", "component", "cosine"}; the sign is dropped, because ablating v and -v is the same.
    """
    value = {
        (row["layer"], row["component"]): abs(row["cosine"])
        for row in _checked(rows, "layer", "component", "cosine")
    }
    layers, components = (sorted(set(keys)) for keys in zip(*value))
    grid = [[value.get((layer, component)) for component in components] for layer in layers]
    figure = _figure(title, model, "component", "site: output of decoder block")
    bar = {"title": {"text": f"|cosine| with<br>{html.escape(target)}", "font_size": 12}, "thickness": 12}
    figure.add_heatmap(
        z=grid,
        x=[str(c) for c in components],
        y=[_site(layer) for layer in layers],
        zmin=0,
        zmax=1,
        xgap=2,
        ygap=2,
        colorscale=[[0, "#F7F7F7"], [0.5, "#7FB8DA"], [1, "#004C7A"]],
        hoverongaps=False,
        text=[["" if v is None else f"{v:.2f}" for v in line] for line in grid],
        texttemplate="%{text}",
        colorbar=bar,
        hovertemplate="layer %{y}, component %{x}: |cosine| %{z:.3f}<extra></extra>",
    )
    figure.update_xaxes(type="category", showgrid=False).update_yaxes(type="category", showgrid=False)
    return figure.update_layout(height=190 + 38 * len(layers))


def _figure(
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


def _styles(rows: Rows, name: str) -> list[tuple[str, str, str]]:
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


def _curves(rows: Rows, series: str, x: str, y: str) -> list[tuple[str, str, str, list[Mapping]]]:
    """(label, colour, symbol, rows in the order of x), one for each series, first seen first."""
    rows = _checked(rows, series, x, y)
    runs: dict[tuple[str, str, str], list[Mapping]] = {}
    for row, style in zip(rows, _styles(rows, series)):
        runs.setdefault(style, []).append(row)
    return [(*style, sorted(run, key=lambda row: row[x])) for style, run in runs.items()]


def _bars(run: Rows, name: str, colour: str, alpha: float = 1.0, scale: float = 100) -> dict | None:
    """Asymmetric error bars from the rows' low and high; None when no row has an interval."""
    low, high = f"{name}_low", f"{name}_high"
    if not any(low in row and high in row for row in run):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "width": 3,
        "thickness": 1.5,
        "color": _transparent(colour, alpha),
        "array": [scale * (row.get(high, row[name]) - row[name]) for row in run],
        "arrayminus": [scale * (row[name] - row.get(low, row[name])) for row in run],
    }


def _checked(rows: Rows, *names: str) -> list[Mapping]:
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


def _percent(row: Mapping, name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * row[name]:.1f}%{interval}"


def _marker(symbol: str, colour: str, size: int | list[int]) -> dict:
    return {
        "symbol": symbol,
        "color": colour,
        "size": size,
        "opacity": 1,
        "line": {"width": 0.8, "color": "white"},
    }  # the rim keeps overlapping markers apart


def _line(colour: str) -> dict:
    return {"color": colour, "width": 2}


def _small(text: str) -> str:
    return f'<span style="font-size:11px;color:{SOFT}">{text}</span>'


def _site(layer: int) -> str:
    return "embedding" if layer == -1 else str(layer)


def _transparent(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
