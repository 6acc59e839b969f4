"""Alignment fakers: how much the published benchmark leaks, from its files alone.

The files hold the probability that each of the published 13B models gives the benign action. The passive rule
suspects the less sure model of a pair, and no model has to be run.
"""

from __future__ import annotations

from collections.abc import Sequence

from caft_utils.course.studies.persona import estimate
from caft_utils.course.studies.study_rows import Row, chosen_conditions
from caft_utils.evaluation.bootstrap import clustered_rate
from caft_utils.tasks.oversight.published import (
    benchmark_file,
    benchmark_source,
    passive_hits,
    published_rows,
)
from caft_utils.tasks.published_data import UNKNOWN

MODEL = "POSER's 13B models"
ALL = "passive confidence, published files at hand"


def published_faker_rows(
    model: str,
    seeds: Sequence[int],
    conditions: tuple[str, ...] | None = None,
) -> list[Row]:
    """Return a row for each file with a recorded checksum, and one for the pairs of all of them.

    Copies in the folder that CAFT_SHARED_DATA names are read; other files are downloaded.

    Args:
        model: `MODEL`, since the probabilities are those of the published models.
        seeds: not used; nothing is drawn.
        conditions: files, by name; None: all with a recorded checksum.
    """
    if model != MODEL:
        raise ValueError(f"the files are about {MODEL}; got {model!r}")
    known = [name for name, checksum in benchmark_source()["files"].items() if checksum != UNKNOWN]
    rows, every = [], []
    for name in chosen_conditions(conditions, known):
        content = published_rows(benchmark_file(name))
        hits = passive_hits(content)
        every += hits
        different = len({row.prompt for row in content})
        rows.append(_row(f"passive confidence, {name}", hits, rows=len(content), different_prompts=different))
    return [*rows, _row(ALL, every)]


def _row(condition: str, hits: Sequence[tuple[str, str, bool]], **more: int) -> Row:
    found, ones = [hit for *_, hit in hits], [1] * len(hits)
    return {
        "model": MODEL,
        "condition": condition,
        "accuracy": estimate(clustered_rate(found, ones, [a for a, *_ in hits], [f for _, f, _ in hits])),
        "naive": estimate(clustered_rate(found, ones, range(len(hits)), [0] * len(hits))),
        "pairs": len(hits),
        "paper": None,
        **more,
    }
