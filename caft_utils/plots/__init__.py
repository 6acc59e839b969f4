"""Plotly figures drawn from plain rows.

Every function takes a list of dicts or a DataFrame (`Comparison.table()`, or the rows of a results file) and
never a model, so a figure can be redrawn from a record. Rates are fractions in [0, 1], shown in percent. An
interval is the pair `<name>_low`, `<name>_high` of the same row; it is drawn where it is present.
"""

from caft_utils.plots.conditions import frontier, rates, side_by_side, tradeoff
from caft_utils.plots.curves import cosines, norms_by_layer, spectrum, training_curve
from caft_utils.plots.style import CONDITION_COLOURS, OKABE_ITO, SYMBOLS

__all__ = [
    "CONDITION_COLOURS",
    "OKABE_ITO",
    "SYMBOLS",
    "cosines",
    "frontier",
    "norms_by_layer",
    "rates",
    "side_by_side",
    "spectrum",
    "tradeoff",
    "training_curve",
]
