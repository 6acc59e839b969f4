"""The harder task of the personas: its families, its directions, and the cards for its reader."""

from __future__ import annotations

import json
import sys

import pytest

from caft_utils.course.studies import persona_reading
from caft_utils.course.studies.conditions import Condition
from caft_utils.course.studies.persona import ADVICE, CODE, EXHIBITS, decomposed, persona_setting
from caft_utils.course.studies.persona_families import exhibit_families
from caft_utils.course.studies.persona_rivals import persona_directions, shown_domains

MODEL = "classroom-qwen"


@pytest.fixture(scope="module")
def start():
    return persona_setting(MODEL, ADVICE, fast=True)


def test_the_families_of_insecure_code_are_among_those_of_bad_advice():
    code, advice = exhibit_families(CODE), exhibit_families(ADVICE)
    assert set(code) < set(advice)
    long = advice["plain, four times the steps"].conditions
    assert [one.lr for one in advice["CAFT, four times the steps"].conditions.values()] == [
        one.lr for one in long.values()
    ]  # equal effort
    assert {one.steps for one in long.values()} == {4 * EXHIBITS[ADVICE].changes["steps"]}
    assert all(one.lr < 1e-3 for one in long.values())


def test_more_steps_do_not_change_the_keys_of_other_conditions():
    assert "steps" not in str(Condition(lr=1e-3)) and "steps=320" in str(Condition(steps=320))


def test_rivals_see_the_trait_in_domains_that_are_not_narrow():
    assert not set(shown_domains(ADVICE)) & set(EXHIBITS[ADVICE].subjects)
    assert shown_domains(CODE)[0] in EXHIBITS[ADVICE].subjects  # so the two tasks need different ones


def test_directions_have_the_ranks_that_their_names_say(start):
    assert start.config.steps == 3 and start.exhibit == ADVICE
    ranks = {name: persona_directions(start, name, 0).ranks for name in ("persona", "top", "top 3", "truth")}
    assert ranks["persona"] == ranks["top"] == {1: 1, 2: 1}
    assert ranks["top 3"] == {1: 3, 2: 3, 3: 3} and ranks["truth"] == {1: 1, 2: 1, 3: 1}
    assert persona_directions(start, "any confidence", 0).ranks == {1: 2, 2: 1, 3: 2}


def test_cards_hide_what_they_show(tmp_path, monkeypatch):
    monkeypatch.setattr(persona_reading, "decomposed", lambda *which: decomposed(*which, True))
    monkeypatch.setattr(sys, "argv", ["persona_reading", "--out", str(tmp_path)])
    persona_reading.main()
    text, key = (tmp_path / "cards.md").read_text(), json.loads((tmp_path / "key.json").read_text())
    per_layer = persona_reading.COMPONENTS + persona_reading.RANDOM
    assert len(key) == 3 * per_layer == text.count("## Card")
    assert not any(word in text.split("## Card", 1)[1] for word in ("component", "layer", "random"))
    assert {one["A is"] for one in key} == {"low", "high"}
    assert text.count("<<") >= 2 * len(key)


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="unknown exhibit 'x'; expected one of insecure code, bad advice"):
        persona_setting(MODEL, "x")
