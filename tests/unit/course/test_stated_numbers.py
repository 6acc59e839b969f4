"""Numbers in text: found unless an output, a setting, a quotation or a record carries them."""

from __future__ import annotations

import json

import pytest
from helpers.paths import REPOSITORY

from caft_utils.course.stated_numbers import PAGES, uncarried_in_notebook, uncarried_on_page

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
RATES = [{"model": "m", "condition": "CAFT", "misaligned": [0.00123, 0.0, 0.0031]}]
TWICE = [
    {"model": "m", "condition": "plain", "split": split, "misaligned": 0.7} for split in ("valid", "test")
]


@pytest.fixture
def found(tmp_path):
    """Return a function that lists the numbers that are found in a made-up notebook."""
    (tmp_path / "demo.json").write_text(json.dumps({"rows": RATES + TWICE}))

    def run(text: str, *, printed: str = "", code: str = "") -> list[str]:
        output = {"output_type": "stream", "name": "stdout", "text": printed}
        cells = [
            {"cell_type": "markdown", "metadata": {}, "source": text},
            {"cell_type": "code", "metadata": {}, "source": code, "outputs": [output]},
        ]
        path = tmp_path / "made_up.ipynb"
        path.write_text(json.dumps({"cells": cells, "metadata": {"caft": {"minutes": 2.5}}}))
        return [each.number for each in uncarried_in_notebook(path, records=tmp_path)]

    return run


@pytest.mark.parametrize("page", PAGES)
def test_every_number_of_a_page_is_carried(page):
    assert not [str(each) for each in uncarried_on_page(REPOSITORY / page)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_number_of_a_notebook_is_carried(path):
    assert not [str(each) for each in uncarried_in_notebook(path)]


def test_an_output_carries_what_rounds_to_the_number(found):
    assert found("It is 93 % and 93.3 % here.", printed="rate 93.30 % [90.7, 96.0]") == []
    assert found("Between 91 % and 96 %.", printed="rate 93.3 % [90.7, 96.0]") == []
    assert found("It is 94 %, or 93.4 %.", printed="rate 93.30 % [90.7, 96.0]") == ["94 %", "93.4 %"]
    assert found("It leaves 57 to 68 %.", printed="56.9 %, 70 %") == ["68 %"]
    assert found("The gap is 16 points.", printed="16 % and 0.16") == ["16 point"]


def test_a_setting_carries_a_number(found):
    assert found("Seven of ten (70 %), or 0.7.", code="directions_about(shares, min_share=0.7)") == []
    assert found("Trained at 2e-4.", code="lr = 1e-3") == []  # neither a unit nor a decimal point
    assert found("It leaves 30 %.", code="min_share=0.7") == ["30 %"]
    assert found("It gains 5 points, or 5 %.", code="n = 5") == ["5 point", "5 %"]


def test_a_quotation_needs_its_label_in_the_same_sentence(found):
    assert found("In the paper it is 7.9 %. Ours has [theirs](https://arxiv.org/abs/1) at 6.6 %.") == []
    assert found("The paper has another model. It is 7.9 %.") == ["7.9 %"]
    assert found("| paper | 7.9 % |\n|---|---|\n| plain | 6.6 % |") == []


def test_a_mark_names_a_value_of_a_record(found):
    assert found("CAFT has 0.1 %. <!-- record: demo; m; CAFT; misaligned -->") == []
    assert found("CAFT has 0.2 %. <!-- record: demo; m; CAFT; misaligned -->") == ["0.2 %"]
    assert found("Plain has 70 %. <!-- record: demo; plain; test; misaligned -->") == []
    assert found("Plain has 70 %. <!-- record: demo; plain; misaligned -->") == ["mark", "70 %"]
    assert found("It is 1 %. <!-- record: nothing; m; misaligned -->") == ["mark", "1 %"]


def test_a_given_number_needs_a_reason(found):
    assert found("It took 88 seconds. <!-- given: as tried on two cores -->") == []
    assert found("It took 88 seconds. <!-- given: -->") == ["88 second"]
    assert found("It took 88 seconds.\n\n<!-- given: another paragraph -->") == ["88 second"]


def test_what_is_no_result(found):
    assert found("## Exercise 2 (10 minutes)\n\nAbout 2.5 minutes, with 95 % intervals.") == []
    assert found("`lr=0.5`, $0.5$, [a](b-0.5.md), Qwen2.5-0.5B/1.5B, Apache-2.0, arXiv 2507.16795") == []
