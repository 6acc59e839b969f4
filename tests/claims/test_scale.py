"""Bounds on what must not change a result on any architecture; `make claims CLAIM=scale` measures it again.

The bounds leave room for sums in another order, and not for a missing ablation. The figures at full size need
a GPU: `python -m caft_utils.course.studies.scale` measures them (data/experiments/scale.yaml).
"""

from __future__ import annotations

import pytest

from caft_utils.course.studies.architecture_models import ARCHITECTURES
from caft_utils.course.studies.architectures import DTYPES, LAUNCHES, RECIPE
from caft_utils.course.studies.experiment import Experiment

WITHIN = {"float32": 1e-4, "bfloat16": 1e-3}
ROUNDING = 2**-8  # of bfloat16


@pytest.fixture(scope="module")
def rows(measure_claim):
    return measure_claim("architectures", Experiment("architectures", "all", (0,)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_checkpointing_changes_nothing(rows, dtype):
    row = rows[f"gradient checkpointing, {dtype}"]
    assert set(row["by architecture"]) == set(ARCHITECTURES)
    assert row["loss"] < WITHIN[dtype] and row["adapter"] < WITHIN[dtype]
    assert row["same_answers"] == row["answers"] > 0


def test_bfloat16_has_the_losses_of_float32(rows):
    assert rows["bfloat16 against float32"]["loss"] < ROUNDING


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("launch", LAUNCHES)
def test_two_processes_give_the_result_of_one(rows, launch, dtype):
    row = rows[f"{launch}, {dtype}"]
    assert row["loss"] < WITHIN[dtype] and row["adapter"] < WITHIN[dtype]
    assert row["adapter without ablation"] > 10 * WITHIN[dtype]
    each = RECIPE.steps * RECIPE.accumulate // 2  # forward passes if the two share the work
    for name, one in row["by architecture"].items():
        assert one["passes"] == [each, each], name
