"""Compare conditions: in the trade-off plane, as whole training runs in that plane, or by one rate."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

from caft_utils.formatting import format_rate
from caft_utils.plots.style import (
    CONDITION_COLOURS,
    INK,
    PERCENT_AXIS,
    as_records,
    empty_figure,
    error_bars,
    escaped,
    line_style,
    marker_style,
    rate_text,
    small,
    styles,
)

if TYPE_CHECKING:  # plotly is slow to import, so each figure imports it when it is drawn
    from plotly.graph_objects import Figure

    from caft_utils.plots.style import Rows

TASK = "narrow task learned (% of held-out answers)"
WANTED = " · wanted: bottom right ↘"
MISALIGNED = "misaligned (% of coherent answers elsewhere)"
# Beside the plot, the legend would leave it no width on a narrow page.
LEGEND_BELOW = {
    "orientation": "h",
    "yref": "container",
    "y": 0,
    "yanchor": "bottom",
    "tracegroupgap": 0,
    "font_size": 12,
}
LEGEND_CHARACTERS = 24  # in one line, so that two names stand side by side at 480 pixels


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
    """Draw the trade-off plane: one point for each condition, with intervals in both directions.

    The legend repeats the numbers, because differences near the floor are small on the scale of the plane.

    Args:
        rows: {"label", x, y} and, for error bars, {x}_low, {x}_high, {y}_low, {y}_high; fractions in [0, 1].
    """
    rows = as_records(rows, "label", numbers=(x, y))
    figure = empty_figure(title, model, x_label, y_label, note=WANTED)
    styled = [(n, row, *style) for n, (row, style) in enumerate(zip(rows, styles(rows, "label")))]
    # known conditions last, so that they are drawn on top
    styled.sort(key=lambda item: item[3] in CONDITION_COLOURS.values())
    for n, row, label, colour, symbol in styled:
        numbers = f"{format_rate(row[y])} at {format_rate(row[x])}"
        figure.add_scatter(
            x=[100 * row[x]],
            y=[100 * row[y]],
            mode="markers",
            marker=marker_style(symbol, colour, 9),
            error_x=error_bars([row], x, colour),
            error_y=error_bars([row], y, colour),
            name=f"{_wrapped(label)}<br>{small(numbers)}",
            legendrank=n,
            hovertemplate=f"{label}<br>x: {rate_text(row, x)}<br>y: {rate_text(row, y)}<extra></extra>",
        )
    figure.update_xaxes(**PERCENT_AXIS).update_yaxes(**PERCENT_AXIS)
    axes = " at ".join(name.split(" (")[0] for name in (y_label, x_label))
    legend = LEGEND_BELOW | {"title": {"text": small(escaped(axes)), "side": "top"}}
    height = 450 + 44 * -(-len(rows) // 2)  # two conditions side by side
    return figure.update_layout(showlegend=True, legend=legend, height=height)


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
    """Draw whole training runs in the trade-off plane: a panel for each setting, a curve for each method.

    Curves join the points by step; the last point is large. All panels share both axes.

    Args:
        rows: {"method", "setting", "step", x, y}, with intervals as in `tradeoff`.
        matched: an in-distribution score (fraction) at which to compare the methods, marked by a line.
    """
    rows = as_records(rows, "method", "setting", "step", numbers=(x, y))
    settings = list(dict.fromkeys(str(row["setting"]) for row in rows))
    columns = min(2, len(settings))  # readable on a page 480 pixels wide
    places = {
        setting: {"row": n // columns + 1, "col": n % columns + 1} for n, setting in enumerate(settings)
    }
    figure = empty_figure(title, model, x_label, y_label, note=WANTED, panels=_panels(places, y_label))
    methods = dict.fromkeys(styles(rows, "method"))
    for style in methods:
        own = [row for row in rows if escaped(row["method"]) == style[0]]
        first = str(own[0]["setting"])
        for setting, place in places.items():
            run = sorted((row for row in own if str(row["setting"]) == setting), key=lambda row: row["step"])
            _add_run(figure, run, x, y, setting, style, showlegend=setting == first, **place)
    figure.update_xaxes(**PERCENT_AXIS | {"dtick": 50}).update_yaxes(**PERCENT_AXIS)
    for setting in settings[-columns:]:  # the lowest panel of each column
        figure.update_xaxes(title_text=_wrapped(escaped(x_label)), showticklabels=True, **places[setting])
    if matched is not None:
        _mark_score(figure, matched)
    figure.update_annotations(font_size=13)
    lines = places[settings[-1]]["row"]
    height = 170 + 270 * lines + 36 * -(-len(methods) // 2)  # two methods side by side
    return figure.update_layout(legend=LEGEND_BELOW, height=height, margin_t=110)


def _panels(places: dict[str, dict[str, int]], y_label: str) -> Figure:
    """Return empty panels for the settings at these places, {setting: {"row", "col"}}, with common axes."""
    from plotly.subplots import make_subplots

    lines = max(place["row"] for place in places.values())
    return make_subplots(
        lines,
        max(place["col"] for place in places.values()),
        shared_xaxes="all",
        shared_yaxes="all",
        y_title=escaped(y_label),
        horizontal_spacing=0.03,
        vertical_spacing=0.16 / lines,
        subplot_titles=[escaped(setting) for setting in places],
    )


def _add_run(
    figure: Figure,
    run: list[dict[str, Any]],
    x: str,
    y: str,
    setting: str,
    style: tuple[str, str, str],
    **trace: Any,
) -> None:
    """Draw the run of one method in the panel of a setting. style: the method's label, colour and symbol."""
    method, colour, symbol = style
    figure.add_scatter(
        x=[100 * row[x] for row in run],
        y=[100 * row[y] for row in run],
        mode="lines+markers",
        marker=marker_style(symbol, colour, [6] * (len(run) - 1) + [12]),
        line=line_style(colour),
        error_x=error_bars(run, x, colour, 0.45),
        error_y=error_bars(run, y, colour, 0.45),
        name=_wrapped(method),
        legendgroup=method,
        customdata=[[escaped(row["step"]), rate_text(row, x), rate_text(row, y)] for row in run],
        hovertemplate=f"{method}, {escaped(setting)}, step %{{customdata[0]}}"
        "<br>x: %{customdata[1]}<br>y: %{customdata[2]}<extra></extra>",
        **trace,
    )


def _mark_score(figure: Figure, matched: float) -> None:
    """Draw a line at the score at which the methods are compared, and name it in the legend."""
    line = {"color": INK, "dash": "dot", "width": 1}
    figure.add_vline(100 * matched, line=line)
    name = f"compare here: {100 * matched:.0f}% of the task"
    figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=name)


def rates(
    rows: Rows,
    *,
    model: str,
    value: str = "misaligned",
    label: str = MISALIGNED,
    title: str = "Misaligned answers, by condition",
) -> Figure:
    """Draw one rate for each condition: a point and its interval, with the numbers beside the name.

    Args:
        rows: {"label", value[, {value}_low, {value}_high]}; fractions in [0, 1].
    """
    rows = as_records(rows, "label", numbers=(value,))
    figure = empty_figure(title, model, label, "")
    for row, (name, colour, symbol) in zip(rows, styles(rows, "label")):
        figure.add_scatter(
            x=[100 * row[value]],
            y=[f"{name}<br>{small(rate_text(row, value))}"],
            mode="markers",
            showlegend=False,
            marker=marker_style(symbol, colour, 11),
            error_x=error_bars([row], value, colour),
            hovertemplate=f"{name}: {rate_text(row, value)}<extra></extra>",
        )
    figure.update_yaxes(range=[len(rows) - 0.5, -0.5], showgrid=False).update_xaxes(**PERCENT_AXIS)
    # Long names push the plot to the right, so the title is aligned with the figure; otherwise it is cut off.
    return figure.update_layout(height=150 + 42 * len(rows), title={"xref": "container", "x": 0.02})


def _wrapped(label: str) -> str:
    """Return an escaped label in lines that leave room for a second one beside it on a narrow page."""
    lines = wrap(label, LEGEND_CHARACTERS, break_long_words=False, break_on_hyphens=False)
    return "<br>".join(lines)


def side_by_side(
    rows: Rows,
    *,
    model: str,
    values: tuple[str, str] = ("task", "misaligned"),
    labels: tuple[str, str] = (TASK, MISALIGNED),
    title: str = "The narrow task, and emergent misalignment",
) -> Figure:
    """Draw two rates of each condition in two panels that share the conditions: a point and its interval.

    Unlike the plane of `tradeoff`, points that lie on one spot do not hide each other.

    Args:
        rows: {"label", value[, {value}_low, {value}_high]} for both values; fractions in [0, 1].
    """
    from plotly.subplots import make_subplots

    rows = as_records(rows, "label", numbers=values)
    titles = ["<br>".join(wrap(escaped(label), 17)) for label in labels]  # side by side at 480 pixels
    panels = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.08, subplot_titles=titles)
    figure = empty_figure(title, model, "", "", panels=panels)
    for row, (name, colour, symbol) in zip(rows, styles(rows, "label")):
        shown = "; ".join(format_rate(row[value]) for value in values)
        for column, value in enumerate(values, 1):
            figure.add_scatter(
                x=[100 * row[value]],
                y=[f"{_wrapped(name)}<br>{small(shown)}"],
                mode="markers",
                showlegend=False,
                marker=marker_style(symbol, colour, 10),
                error_x=error_bars([row], value, colour),
                hovertemplate=f"{name}: {rate_text(row, value)}<extra></extra>",
                cliponaxis=False,
                row=1,
                col=column,
            )
    figure.update_yaxes(range=[len(rows) - 0.5, -0.5], showgrid=True)
    figure.update_xaxes(**PERCENT_AXIS | {"dtick": 50})
    figure.update_annotations(font_size=12)
    height = 220 + 46 * len(rows)
    return figure.update_layout(height=height, margin_t=150, title={"xref": "container", "x": 0.02})
