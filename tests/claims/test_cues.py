"""Spurious cues: `make claims CLAIM=cues` measures these figures anew, prints every one and records them.

Every cell (setting, method, seed) is stored when it is measured, so that a killed run goes on where it
stopped: about 15 s of one core each where a model is to be trained. SEEDS=3 makes three seeds of it
(default 5), PART=main leaves the baselines, the sweep and the other eight settings out, and PART=stored
measures nothing and reports the cells that there are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import cues_exhibit as exhibit
import pytest
from cues_cells import cells, key, measured

from caft_utils.course.grid import Grid, run_grid
from caft_utils.course.pages import FIRM
from caft_utils.course.records import save_record
from caft_utils.evaluation.measurement import Result

# field of the record -> rate of the task
RATES = {"ood_accuracy": "ood_accuracy", "flipped_accuracy": "cue_accuracy", "task_score": "task_accuracy"}


def row(name: str, method: str, result: Result, seeds: list[int]) -> dict:
    estimates = {}
    for field, rate in RATES.items():
        value = result.rate(rate)
        estimates[field] = [round(x, 5) for x in (value.value, value.low, value.high)]
    about = {"model": exhibit.model_of(name), "setting": name, "condition": method, "seeds": seeds}
    return about | estimates


def by_condition(grid: Grid) -> dict[str, dict[str, dict]]:
    """{method: {setting: row}}, the seeds merged."""
    seeds: dict[tuple, list[int]] = {}
    for name, method, seed in grid.results:
        seeds.setdefault((name, method), []).append(seed)
    out: dict[str, dict[str, dict]] = {}
    for (name, method), result in grid.merged((0, 1)).items():
        out.setdefault(method, {})[name] = row(name, method, result, seeds[name, method])
    return out


def mean(table: dict, method: str, names: Sequence[str], rate: str = "ood_accuracy") -> float:
    """Over settings; a look at an unfinished grid skips what needs those that are missing."""
    if missing := set(names) - set(table.get(method, {})):
        pytest.skip(f"not measured yet: {method}, {len(missing)} of {len(names)} settings")
    return sum(table[method][name][rate][0] for name in names) / len(names)


@pytest.fixture(scope="module")
def table():
    """All cells, printed and recorded once."""
    started = time.monotonic()
    part = os.environ.get("PART", "all")
    grid = run_grid(cells(part), measured, key=key, skip_missing=part == "stored")
    found = by_condition(grid)
    rows = []
    for method, of_method in found.items():
        print(f"\n{method}: OOD accuracy, low, high | flipped | in distribution, in %")
        for one in of_method.values():
            said = " | ".join(" ".join(f"{100 * x:5.1f}" for x in one[rate]) for rate in RATES)
            print(f"  {one['setting']:24s} {said}")
            rows.append(one)
        if set(exhibit.PAPER) <= set(of_method):
            print(f"  mean of the paper's 16   {100 * mean(found, method, exhibit.PAPER):5.1f}")
    for method in ("SAE", "PCA", "PCA by labels", "class means"):
        for name in found.get(method, {}):
            about = {"model": exhibit.model_of(name), "setting": name, "condition": f"choice, {method}"}
            rows.append(about | exhibit.chosen(name, method)[1])
    print(f"\n{len(grid.results)} cells, {grid.total_seconds / 60:.0f} minutes of measuring in all runs")
    save_record("cues", rows, seconds=time.monotonic() - started)
    return found


@pytest.mark.parametrize("method", ["plain", "SAE", "PCA"])
def test_every_setting_is_learned(table, method):
    low = {name: one["task_score"][0] for name, one in table[method].items() if one["task_score"][0] < 0.97}
    assert not low and set(exhibit.PAPER) <= set(table[method])


def test_plain_fine_tuning_follows_the_unintended_question(table):
    assert mean(table, "plain", exhibit.PAPER) <= 0.45
    assert sum(table["plain"][name]["ood_accuracy"][0] <= 0.20 for name in exhibit.PAPER) >= 6


def test_caft_with_latents(table):
    assert mean(table, "SAE", exhibit.PAPER) >= 0.85


def test_caft_with_components(table):
    assert mean(table, "PCA", exhibit.PAPER) >= 0.60


@pytest.mark.parametrize("method", ["SAE", "PCA"])
def test_gender(table, method):
    assert mean(table, "plain", ["gender"]) <= 0.15
    assert mean(table, method, ["gender"]) >= 0.95


def test_components_fail_where_the_base_has_the_stereotype_fully(table):
    """What fine-tuning changes hardly holds the axis then. The control for the reading: the order that labels
    give hardly helps; hooks hide, and do not teach (notebook 09)."""
    assert mean(table, "PCA", [FIRM]) < 0.6 < 0.95 <= mean(table, "SAE", [FIRM])
    assert mean(table, "PCA by labels", [FIRM]) < mean(table, "PCA", [FIRM]) + 0.2
    for method in ("PCA", "PCA by labels"):
        assert mean(table, method, [FIRM]) + 0.2 < mean(table, f"{method}, hooks on", [FIRM])


def test_random_directions_do_not_take_gender_out(table):
    assert mean(table, "random directions", ["gender"]) + 0.3 <= mean(table, "PCA", ["gender"])


@pytest.mark.parametrize("method", ["random directions", "random latents of the top 100"])
def test_ablating_anything_is_not_enough(table, method):
    assert mean(table, "SAE", exhibit.PAPER) >= mean(table, method, exhibit.PAPER) + 0.3
