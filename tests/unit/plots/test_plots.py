"""Figures show the values of the rows: intervals in both directions, model, escaped labels."""

from __future__ import annotations

import json
import re

import pandas
import pytest
from helpers.browsers import browser_path

from caft_utils import plots


def point(label, task, misaligned, half=0.02, **more):
    return {
        "label": label,
        "task": task,
        "task_low": task - half,
        "task_high": task + half / 2,
        "misaligned": misaligned,
        "misaligned_low": misaligned - half,
        "misaligned_high": misaligned + half / 2,
        **more,
    }


def trace(figure, start):
    return next(t for t in figure.data if (t.name or "").startswith(start))


def test_tradeoff_has_intervals_in_both_directions_and_names_the_model():
    figure = plots.tradeoff([point("plain", 0.9, 0.8), point("CAFT", 0.88, 0.05)], model="classroom <qwen>")
    caft = trace(figure, "CAFT")
    assert (caft.x[0], caft.y[0]) == pytest.approx((88, 5))
    assert (caft.error_x.array[0], caft.error_x.arrayminus[0]) == pytest.approx((1, 2))
    assert (caft.error_y.array[0], caft.error_y.arrayminus[0]) == pytest.approx((1, 2))
    assert "5.0 % at 88.0 %" in caft.name
    assert "classroom &lt;qwen&gt;" in figure.layout.title.subtitle.text
    assert "%" in figure.layout.xaxis.title.text and "%" in figure.layout.yaxis.title.text


def test_tradeoff_keeps_legend_order_and_colours_whatever_the_order_of_drawing():
    rows = [point("CAFT", 0.9, 0.1), point("random", 0.9, 0.8), point("plain", 0.9, 0.8)]
    figure = plots.tradeoff(rows, model="m")
    assert [trace(figure, name).legendrank for name in ("CAFT", "random", "plain")] == [0, 1, 2]
    assert trace(figure, "CAFT").marker.color == plots.CONDITION_COLOURS["caft"]
    assert trace(figure, "plain").marker.color == plots.CONDITION_COLOURS["plain"]
    colours = [t.marker.color for t in figure.data]
    assert len(set(colours)) == 3 and figure.data[-1].name.startswith("plain")


def test_rows_without_intervals_have_no_bars():
    figure = plots.tradeoff([{"label": "base", "task": 0.0, "misaligned": 0.0}], model="m")
    assert figure.data[0].error_x.array is None and figure.data[0].error_y.array is None


def test_frontier_joins_by_step_in_one_panel_a_setting():
    rows = [
        point("", t, m, method=method, setting=lr, step=step)
        for method, lr, step, t, m in (
            ("plain", "lr 1e-3", 20, 0.9, 0.8),
            ("plain", "lr 1e-3", 5, 0.4, 0.1),
            ("CAFT", "lr 1e-3", 20, 0.9, 0.05),
            ("CAFT", "lr 1e-4", 20, 0.5, 0.01),
        )
    ]
    figure = plots.frontier(rows, model="m", matched=0.9)
    plain = trace(figure, "plain")
    assert list(plain.x) == pytest.approx([40, 90]) and list(plain.error_y.arrayminus) == pytest.approx(
        [2, 2]
    )
    panels = {t.xaxis for t in figure.data if t.name == "CAFT" and len(t.x)}
    assert len(panels) == 2
    assert sum(bool(t.showlegend) for t in figure.data if t.name == "CAFT") == 1
    assert {shape.x0 for shape in figure.layout.shapes} == {90}
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range


@pytest.mark.parametrize("settings", [1, 2, 3, 5])
def test_frontier_has_its_axis_below_the_lowest_panel_of_each_column(settings):
    rows = [point("", 0.5, 0.2, method="plain", setting=f"rank {n}", step=1) for n in range(settings)]
    figure = plots.frontier(rows, model="m", x_label="learned (%)")
    panels = [figure.layout[trace.xaxis.replace("x", "xaxis")] for trace in figure.data]
    labelled = [n for n, panel in enumerate(panels) if panel.title.text == "learned (%)"]
    columns = len({panel.domain for panel in panels})
    assert columns <= 2 and labelled == list(range(settings - columns, settings))
    assert all(panels[n].showticklabels is not False for n in labelled)


def test_curves_are_sorted_and_in_their_unit():
    rows = [{"series": "s", "step": step, "rate": step / 10} for step in (4, 2, 0)]
    figure = plots.training_curve(rows, model="m", value="rate", percent=True, label="share (%)")
    assert list(figure.data[0].x) == [0, 2, 4] and list(figure.data[0].y) == pytest.approx([0, 20, 40])
    assert list(plots.training_curve(rows, model="m", value="rate").data[0].y) == pytest.approx([0, 0.2, 0.4])


def test_norms_spectrum_cosines_and_rates():
    norms = plots.norms_by_layer(
        [{"series": "all", "layer": n, "norm": n + 2, "norm_low": 1, "norm_high": 9} for n in (-1, 0)],
        model="m",
    )
    assert norms.layout.xaxis.ticktext[0] == "embedding" and len(norms.data) == 2
    rows = [
        {"layer": layer, "component": c, "share": 0.5 / (c + 1), "cosine": -0.9 if c == 0 else 0.1}
        for layer in (1, 2)
        for c in (0, 1)
    ]
    assert list(plots.spectrum(rows, model="m").data[1].y) == pytest.approx([50, 25])
    assert [list(line) for line in plots.cosines(rows[:3], model="m").data[0].z] == [[0.9, 0.1], [0.9, None]]
    rates = plots.rates([point("<b>plain</b>", 1, 0.5)], model="m")
    assert rates.data[0].y[0].startswith("&lt;b&gt;plain&lt;/b&gt;") and rates.data[0].error_x.array[
        0
    ] == pytest.approx(1)


def test_two_rates_side_by_side_share_the_conditions():
    figure = plots.side_by_side([point("plain", 1, 0.5), point("CAFT", 0.9, 0)], model="m")
    task, harm = figure.data[:2]
    assert (task.x[0], harm.x[0]) == pytest.approx((100, 50)) and task.y == harm.y
    assert (task.xaxis, harm.xaxis) == ("x", "x2") and len(figure.data) == 4


def test_a_table_draws_the_same_figure_as_its_rows():
    rows = [point("plain", 0.9, 0.8), {"label": "base", "task": 0.1, "misaligned": 0.0}]
    listed, table = (plots.tradeoff(given, model="m") for given in (rows, pandas.DataFrame(rows)))
    assert table.to_json() == listed.to_json()
    with pytest.raises(ValueError, match="row 1 has no misaligned"):
        plots.tradeoff(pandas.DataFrame([*rows[:1], {"label": "base", "task": 0.1}]), model="m")
    with pytest.raises(ValueError, match="no rows"):
        plots.tradeoff(pandas.DataFrame(rows[:0]), model="m")


@pytest.mark.parametrize(
    "rows, message",
    [
        ([], "no rows"),
        ([{"label": "plain", "task": 0.4}], "row 0 has no misaligned"),
        ([{"label": "plain", "task": 0.4, "misaligned": None}], "row 0"),
    ],
)
def test_bad_rows_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        plots.tradeoff(rows, model="m")


draws_pictures = pytest.mark.skipif(browser_path() is None, reason="needs chromium to draw a picture")


@draws_pictures
def test_a_figure_becomes_a_picture():
    picture = plots.tradeoff([point("plain", 0.9, 0.8)], model="m").to_image("png")
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000


@draws_pictures
@pytest.mark.parametrize("draw", [plots.tradeoff, plots.frontier])
def test_a_legend_of_many_conditions_leaves_a_narrow_page_room_for_the_plot(draw):
    names = [f"condition {n} of several words" for n in range(14)]
    rows = [point(name, 0.5, 0.2, method=name, setting="lr 1e-3", step=1) for name in names]
    picture = draw(rows, model="m").to_image("svg", width=480).decode()
    panel = re.search(r'id="\w+xy"><rect x="(.+?)" y="(.+?)" width="(.+?)" height="(.+?)"', picture)
    _, top, width, height = map(float, panel.groups())
    assert width > 330 and height > 230
    legend = re.search(r'class="legend".*?translate\((\d+),(\d+)\).*?width="(\d+)" height="(\d+)"', picture)
    left, legend_top, legend_width, legend_height = map(float, legend.groups())
    assert legend_top > top + height + 40  # the axis and its title stand between
    assert left + legend_width <= 480
    assert legend_top + legend_height <= draw(rows, model="m").layout.height
    assert re.search(r'class="scrollbar"[^>]* height="0"', picture)


HOSTILE = "<a href='https://x.example'>\"A\" & b</a> %{x}<extra></extra> $y$ \ud83d"
AS_DRAWN = "&lt;a href='https://x.example'&gt;\"A\" &amp; b&lt;/a&gt; %&#123;x}"


@pytest.mark.parametrize(
    "figure",
    [
        lambda t: plots.tradeoff([point(t, 0.5, 0.2)], model=t, x_label=t, y_label=t, title=t),
        lambda t: plots.rates([point(t, 0.5, 0.2)], model=t, label=t, title=t),
        lambda t: plots.side_by_side([point(t, 0.5, 0.2)], model=t, labels=(t, t), title=t),
        lambda t: plots.frontier(
            [point("", 0.5, 0.2, method=t, setting=t, step=t)], model=t, x_label=t, y_label=t, title=t
        ),
        lambda t: plots.training_curve([{"series": t, "step": 1, "loss": 1.0}], model=t, label=t, title=t),
        lambda t: plots.norms_by_layer([{"series": t, "layer": 1, "norm": 1.0}], model=t, label=t, title=t),
        lambda t: plots.spectrum([{"layer": 1, "component": 0, "share": 0.1}], model=t, label=t, title=t),
        lambda t: plots.cosines([{"layer": 1, "component": t, "cosine": 0.1}], model=t, target=t, title=t),
    ],
    ids=["tradeoff", "rates", "side_by_side", "frontier", "training", "norms", "spectrum", "cosines"],
)
def test_every_label_is_drawn_as_it_is_written(figure):
    text = json.dumps(figure(HOSTILE).to_plotly_json(), default=list, ensure_ascii=False)
    assert text.encode() and "<a " not in text and "%{x}<" not in text and "$" not in text
    assert json.dumps(AS_DRAWN)[1:-1] in text and "&quot;" not in text and "&#x27;" not in text


@pytest.mark.parametrize("value", ["0.5", float("inf"), True, [0.5]])
def test_a_rate_that_is_no_number_is_named(value):
    with pytest.raises(ValueError, match="row 1, misaligned_high"):
        plots.rates([point("a", 0.5, 0.2), point("b", 0.5, 0.2, misaligned_high=value)], model="m")
