"""The index page."""

from __future__ import annotations


def test_index_draws_a_figure_without_a_picture(tmp_path, run, write, figure):
    write("00_toy", (figure(picture=False), "key-figure"))
    assert run() == 0
    index = (tmp_path / "build" / "tutorial" / "index.html").read_text()
    assert index.count('Plotly.newPlot("figure-0"') == 1 and "plotly.js v" in index
    assert '"name": "\\u003c/script\\u003e"' in index  # a label cannot close the script
