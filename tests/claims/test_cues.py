"""Bounds on spurious cues; `make claims CLAIM=cues` measures the figures again.

SEEDS=3 uses three seeds (default 5). PART=main leaves out baselines, the sweep and the other eight settings.
PART=stored measures nothing and reports the cells that were measured before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import pytest
from helpers.claims import measure

from caft_utils.course.cue_tables import FIRM
from caft_utils.course.records import save_record
from caft_utils.course.studies.cues_settings import MODEL, PAPER
from caft_utils.course.studies.experiment import Experiment
from caft_utils.course.studies.persona import print_rows

SEEDS = tuple(range(int(os.environ.get("SEEDS", 5))))
PART = os.environ.get("PART", "all")


@pytest.fixture(scope="module")
def table():
    """Rows by condition and setting, printed and recorded once."""
    started = time.monotonic()
    rows = measure(Experiment("cues", MODEL, SEEDS, options={"part": PART}))
    print_rows(rows)
    save_record("cues", rows, seconds=time.monotonic() - started)
    out: dict[str, dict[str, dict]] = {}
    for row in rows:
        out.setdefault(row["condition"], {})[row["setting"]] = row
    return out


def mean(table: dict, method: str, names: Sequence[str], rate: str = "ood_accuracy") -> float:
    """Return the mean over settings, or skip where a setting has not been measured yet."""
    if missing := set(names) - set(table.get(method, {})):
        pytest.skip(f"not measured yet: {method}, {len(missing)} of {len(names)} settings")
    return sum(table[method][name][rate][0] for name in names) / len(names)


@pytest.mark.parametrize("method", ["plain", "SAE", "PCA"])
def test_every_setting_is_learned(table, method):
    low = {name: one["task_score"][0] for name, one in table[method].items() if one["task_score"][0] < 0.97}
    assert not low and set(PAPER) <= set(table[method])


def test_plain_fine_tuning_follows_the_unintended_question(table):
    assert mean(table, "plain", PAPER) <= 0.45
    assert sum(table["plain"][name]["ood_accuracy"][0] <= 0.20 for name in PAPER) >= 6


def test_caft_with_latents(table):
    assert mean(table, "SAE", PAPER) >= 0.85


def test_caft_with_components(table):
    assert mean(table, "PCA", PAPER) >= 0.60


@pytest.mark.parametrize("method", ["SAE", "PCA"])
def test_gender(table, method):
    assert mean(table, "plain", ["gender"]) <= 0.15
    assert mean(table, method, ["gender"]) >= 0.95


def test_components_fail_where_the_base_has_the_stereotype_fully(table):
    """What fine-tuning changes then hardly contains the axis.

    As a control for the reading, the order by labels hardly helps. Hooks at test hide the stereotype and do
    not unteach it (notebook 09).
    """
    assert mean(table, "PCA", [FIRM]) < 0.6 < 0.95 <= mean(table, "SAE", [FIRM])
    assert mean(table, "PCA by labels", [FIRM]) < mean(table, "PCA", [FIRM]) + 0.2
    for method in ("PCA", "PCA by labels"):
        assert mean(table, method, [FIRM]) + 0.2 < mean(table, f"{method}, hooks on", [FIRM])


def test_random_directions_do_not_remove_gender(table):
    assert mean(table, "random directions", ["gender"]) + 0.3 <= mean(table, "PCA", ["gender"])


@pytest.mark.parametrize("method", ["random directions", "random latents of the top 100"])
def test_ablating_anything_is_not_enough(table, method):
    assert mean(table, "SAE", PAPER) >= mean(table, method, PAPER) + 0.3
