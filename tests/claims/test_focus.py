"""Bounds on focus instruction tuning; `make claims CLAIM=focus` measures the figures again."""

from __future__ import annotations

import math

import pytest

from caft_utils.course.records import load_record
from caft_utils.course.studies.experiment import Experiment
from caft_utils.course.studies.focus import SPEAKERS, SUBJECTS
from caft_utils.course.studies.focus_settings import HIGH, LOW, MODEL, QUESTIONS, RHOS
from caft_utils.tasks.focus import CORE_TYPES, SPURIOUS_TYPES

SPLITS = ("iid", "high", "low", "flipped")


@pytest.fixture(scope="module")
def rows(measure_claim):
    """{(setting, condition): row}."""
    measure_claim("focus", Experiment("focus", MODEL))
    return {(row["setting"], row["condition"]): row for row in load_record("focus")["rows"]}


def value(rows, condition, split, kind, setting=SPEAKERS):
    return rows[setting, condition]["rates"][f"{split}: {kind}"][0]


def test_labels_agree_with_the_spurious_value_in_a_share_rho_of_each_split(rows):
    expected = {"iid": 1 / 3, "high": HIGH, "low": LOW, "flipped": (1 - HIGH) / 2, "unseen values": 1 / 3}
    for split, rho in expected.items():
        error = math.sqrt(rho * (1 - rho) / QUESTIONS)
        assert abs(rows[SPEAKERS, "FIT"]["agreement"][split] - rho) <= 4 * error, split


@pytest.mark.parametrize("kind", (*CORE_TYPES, *SPURIOUS_TYPES))
def test_fit_obeys_every_type_on_every_split(rows, kind):
    for split in SPLITS:
        assert value(rows, "FIT", split, kind) >= 0.95, split


def test_unseen_values_can_be_ignored_but_not_followed(rows):
    for kind in CORE_TYPES:
        assert value(rows, "FIT", "unseen values", kind) >= 0.85, kind
    for kind in SPURIOUS_TYPES:  # nobody said which label a new value has; chance is a third
        assert value(rows, "FIT", "unseen values", kind) <= 0.5, kind


def test_without_the_focus_text_the_answer_is_that_of_the_core(rows):
    """So without instructions a model is right under focus(S) as often as the two agree."""
    for condition in ("SFT(y)", "SFT(y_focus)"):
        row = rows[SPEAKERS, condition]
        for split in SPLITS:
            assert abs(row["y_s without focus text"][split][0] - row["agreement"][split]) <= 0.1, condition


def test_instructions_that_training_never_showed_are_not_followed(rows):
    """The text alone disturbs this model, so accuracy is not exactly rho. It stays far below FIT's."""
    for condition in ("SFT(y)", "SFT(y_focus)"):
        assert value(rows, condition, "flipped", "focus(S)") <= 0.6, condition


def test_without_a_correlation_fit_and_plain_fine_tuning_both_learn_the_core(rows):
    name = f"rho {RHOS[0]:g}"
    for condition in ("FIT", "plain", "CAFT"):
        assert value(rows, condition, "conflict", "empty", name) >= 0.9, condition


def test_at_rho_1_instructions_change_nothing_and_caft_still_works(rows):
    name = f"rho {RHOS[-1]:g}"
    asked = [value(rows, "FIT", "conflict", kind, name) for kind in ("ignore(S)", "focus(S)")]
    assert abs(sum(asked) - 1) <= 0.1  # the same answer whatever is asked
    caft, plain = (value(rows, one, "conflict", "empty", name) for one in ("CAFT", "plain"))
    assert caft >= 0.9 and plain <= 0.2
    assert value(rows, "random directions", "conflict", "empty", name) <= 0.3


def test_the_unseen_feature_is_reported(rows):
    rates = rows[SUBJECTS, "FIT"]["rates"]
    assert {name.split(": ")[0] for name in rates} == {"seen features", "unseen feature"}


def test_the_real_model_is_reported(measure_claim):
    """No bound on what is found, which is reported; but its splits must differ in rho."""
    from caft_utils.models.smollm2 import is_on_this_machine

    if not is_on_this_machine():
        pytest.skip("smollm2 is not on this machine")
    rows = measure_claim("focus", Experiment("focus real", "smollm2", seeds=(0,)))
    for name, row in rows.items():
        assert row["agreement"]["high"] > row["agreement"]["iid"] > row["agreement"]["low"], name
        assert all(0 <= low <= value <= high <= 1 for value, low, high in row["rates"].values()), name
