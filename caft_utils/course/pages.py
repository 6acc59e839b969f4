"""Write the tables and pictures of the README and the data card from the records.

    python -m caft_utils.course.pages

writes them into the pages. Each table is a function of a record alone, so a test can check that a page shows
what was recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from caft_utils.classroom.data_card import put_table
from caft_utils.course.cue_tables import advice_table, cues_table, gender_rivals_table, gender_table
from caft_utils.course.engine_tables import (
    architectures_table,
    engines_table,
    judge_table,
    judge_use_table,
)
from caft_utils.course.faker_tables import countermeasures_table, fakers_table, harder_table
from caft_utils.course.focus_tables import focus_features_table, focus_rho_table, focus_table
from caft_utils.course.page_pictures import write_pictures
from caft_utils.course.persona_tables import (
    emergent_table,
    harder_rivals_table,
    reading_table,
    rivals_table,
    twins_table,
    why_table,
)
from caft_utils.course.records import load_record
from caft_utils.course.table_frames import Record
from caft_utils.formatting import markdown_table

if TYPE_CHECKING:
    from pandas import DataFrame

ROOT = Path(__file__).parents[2]
RESULTS = "data/results/README.md"
# page, markers around the table, table, claim
TABLES: tuple[tuple[str, str, Callable[[Record], DataFrame], str], ...] = (
    (RESULTS, "gender", gender_table, "real-gender"),
    (RESULTS, "gender-rivals", gender_rivals_table, "real-gender-rivals"),
    (RESULTS, "advice", advice_table, "real-advice"),
    (RESULTS, "measured", emergent_table, "emergent"),
    (RESULTS, "reading", reading_table, "reading"),
    (RESULTS, "cues", cues_table, "cues"),
    (RESULTS, "why", why_table, "why"),
    (RESULTS, "rivals", rivals_table, "rivals"),
    (RESULTS, "harder", harder_rivals_table, "harder"),
    (RESULTS, "architectures", architectures_table, "architectures"),
    (RESULTS, "engines", engines_table, "nnsight"),
    (RESULTS, "judge", judge_table, "judge"),
    (RESULTS, "judge-use", judge_use_table, "judge"),
    (RESULTS, "focus", focus_table, "focus"),
    (RESULTS, "focus-features", focus_features_table, "focus"),
    (RESULTS, "focus-rho", focus_rho_table, "focus"),
    (RESULTS, "fakers", fakers_table, "fakers"),
    (RESULTS, "countermeasures", countermeasures_table, "fakers"),
    (RESULTS, "harder-fakers", harder_table, "fakers"),
    ("data/classroom/README.md", "twins", twins_table, "twins"),
)


def frame_markdown(frame: DataFrame) -> str:
    """Return a table of text cells as Markdown."""
    return markdown_table(list(frame.columns), frame.to_numpy().tolist())


def write_tables(root: Path = ROOT) -> None:
    """Write every table of `TABLES` into its page in the repository at `root`."""
    for page, name, table, claim in TABLES:
        put_table(root / page, frame_markdown(table(load_record(claim))), name)


if __name__ == "__main__":
    write_tables()
    write_pictures()
