"""Curves over steps, layers and components, and a map of cosines by layer and component."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caft_utils.plots.style import (
    PERCENT_AXIS,
    as_records,
    empty_figure,
    error_bars,
    escaped,
    grouped,
    line_style,
    marker_style,
    site_name,
    transparent,
)

if TYPE_CHECKING:  # plotly is slow to import, so each figure imports it when it is drawn
    from plotly.graph_objects import Figure

    from caft_utils.plots.style import Rows


def training_curve(
    rows: Rows,
    *,
    model: str,
    value: str = "loss",
    percent: bool = False,
    label: str = "loss (nats per answer token)",
    x_label: str = "optimizer step",
    title: str = "What fine-tuning learns",
) -> Figure:
    """Draw a quantity over the steps of fine-tuning, or over another number that `x_label` names.

    Args:
        rows: {"series", "step", value[, {value}_low, {value}_high]}.
        percent: values are fractions, shown in percent on a fixed axis from 0 to 100.
    """
    figure = empty_figure(title, model, x_label, label)
    scale = 100 if percent else 1
    for name, colour, symbol, run in grouped(rows, "series", "step", value):
        figure.add_scatter(
            x=[row["step"] for row in run],
            y=[scale * row[value] for row in run],
            name=name,
            mode="lines+markers" if len(run) <= 40 else "lines",
            line=line_style(colour),
            marker=marker_style(symbol, colour, 8),
            error_y=error_bars(run, value, colour, 0.45, scale),
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
    """Draw lengths of residual vectors by layer, with a band from "norm_low" to "norm_high".

    Args:
        rows: {"series", "layer", "norm"[, "norm_low", "norm_high"]}; layer -1 is the embedding's output.
    """
    rows = as_records(rows)
    figure = empty_figure(title, model, "site: output of decoder block", label)
    for name, colour, symbol, run in grouped(rows, "series", "layer", "norm"):
        layers = [row["layer"] for row in run]
        if all("norm_low" in row and "norm_high" in row for row in run):
            upper, lower = [row["norm_high"] for row in run], [row["norm_low"] for row in run]
            figure.add_scatter(
                x=layers + layers[::-1],
                y=upper + lower[::-1],
                fill="toself",
                mode="lines",
                fillcolor=transparent(colour, 0.15),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=name,
            )
        figure.add_scatter(
            x=layers,
            y=[row["norm"] for row in run],
            mode="lines+markers",
            line=line_style(colour),
            marker=marker_style(symbol, colour, 8),
            name=name,
            legendgroup=name,
            hovertemplate="%{y:.3g}",
        )
    sites = sorted({row["layer"] for row in rows})
    figure.update_xaxes(tickvals=sites, ticktext=[site_name(layer) for layer in sites])
    return figure.update_yaxes(rangemode="tozero").update_layout(showlegend=True)


def spectrum(
    rows: Rows,
    *,
    model: str,
    label: str = "explained variance (% of the layer's total)",
    title: str = "How much of the difference each component explains",
) -> Figure:
    """Draw the explained variance of each principal component, one curve for each layer.

    Args:
        rows: {"layer", "component", "share"}. Components count from 0; share is a fraction of the variance of
            (tuned - base) activations at that layer.
    """
    figure = empty_figure(title, model, "principal component of the activation difference", label)
    for layer, colour, symbol, run in grouped(rows, "layer", "component", "share"):
        figure.add_scatter(
            x=[row["component"] for row in run],
            y=[100 * row["share"] for row in run],
            mode="lines+markers",
            line=line_style(colour),
            marker=marker_style(symbol, colour, 8),
            name=f"layer {site_name(int(layer))}",
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
    """Draw the |cosine| of every component with a known direction, as a map of layer by component.

    The sign is dropped, because ablating v and ablating -v are the same.

    Args:
        rows: {"layer", "component", "cosine"}.
        target: names the known direction.
    """
    value = {
        (row["layer"], row["component"]): abs(row["cosine"])
        for row in as_records(rows, "layer", "component", numbers=("cosine",))
    }
    layers, components = (sorted(set(keys)) for keys in zip(*value))
    grid = [[value.get((layer, component)) for component in components] for layer in layers]
    figure = empty_figure(title, model, "component", "site: output of decoder block")
    bar = {"title": {"text": f"|cosine| with<br>{escaped(target)}", "font_size": 12}, "thickness": 12}
    figure.add_heatmap(
        z=grid,
        x=[escaped(c) for c in components],
        y=[site_name(layer) for layer in layers],
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
