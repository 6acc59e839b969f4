"""Evaluate a table of rivals: which ones do as well at a matched score, and the cost of tuning.

Rows are those of `rival_grids.rival_rows`: a rate is [value, low, high].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import mean

from caft_utils.course.studies.rival_grids import PLAIN, Family
from caft_utils.course.studies.study_rows import Row


def not_shown_worse(row: Row, reference: Row, *, task: str, harm: str) -> bool:
    """Return whether a row is not measurably worse than the reference on either axis.

    This is the rule for "at a matched score". The interval of the task must not lie below the reference's,
    and that of the harm must not lie above it.
    """
    return row[task][2] >= reference[task][1] and row[harm][1] <= reference[harm][2]


def learned_task(row: Row, plain: Row, *, task: str) -> bool:
    """Return whether a setting has learned the task: its score reaches the lower end of plain's interval."""
    return row[task][0] >= plain[task][1]


def cost_of_tuning(
    rows: Sequence[Row], table: Mapping[str, Family], *, task: str, harm: str
) -> list[dict[str, float | int | str]]:
    """Return the expected harm after trying k of a family's settings, for every k.

    For k trials it is the mean over all sets of k settings. Each set contributes the least harm among the
    settings that learned the task, and plain fine-tuning's harm if none did. The harm is measured on the
    validation questions, on which the choice is made, so it is a little optimistic for every family.

    Args:
        rows: one row for each setting, and the row of "plain".

    Returns:
        {"series": the family, "step": the number of trials, "rate": the harm}.
    """
    by_name = {row["condition"]: row for row in rows}
    plain, points = by_name[PLAIN], []
    for title, family in table.items():
        tried = [by_name[name] for name in family.conditions if name in by_name]
        for trials in range(1, len(tried) + 1):
            least = []
            for some in combinations(tried, trials):
                able = [row[harm][0] for row in some if learned_task(row, plain, task=task)]
                least.append(min(able, default=plain[harm][0]))
            points.append({"series": title, "step": trials, "rate": mean(least)})
    return points
