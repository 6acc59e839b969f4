"""The course's figures: plain rows in, one plotly figure out.

Every function takes a list of dicts (what `Comparison.table()` or a results file holds), never a model, so
a figure can be drawn again from a record. Rates are fractions in [0, 1], shown in percent; an interval is the
pair `<name>_low`, `<name>_high` of the same row, drawn wherever it is there.
"""

from caft_utils.plots.conditions import frontier, rates, tradeoff
from caft_utils.plots.curves import cosines, norms_by_layer, spectrum, training_curve
from caft_utils.plots.style import MEANING, OKABE_ITO, SYMBOLS

__all__ = [
    "MEANING",
    "OKABE_ITO",
    "SYMBOLS",
    "cosines",
    "frontier",
    "norms_by_layer",
    "rates",
    "spectrum",
    "tradeoff",
    "training_curve",
]
