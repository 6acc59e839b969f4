"""Automatic selection: either side counts, and every explanation has a reason."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from helpers.malice import HINTS, KITCHEN, MALICE, SCHOOL, VILLAIN, explained

from caft_utils.interpret.score import Score
from caft_utils.interpret.select.automatic import AutomaticSelection, select_automatically
from caft_utils.interpret.select.relevance import WordRelevance, word_relevance


def score(value: float, low: float) -> Score:
    return Score("detection", value, low, 1.0, 40)


def test_either_side_is_selected_and_every_explanation_has_a_reason():
    explanations = {
        (2, 0, "+"): SCHOOL,
        (2, 0, "-"): VILLAIN,
        (2, 1, "+"): KITCHEN,
        (3, 7, "+"): explained('"cruel", "spoon"'),
    }
    chosen = select_automatically(explanations, MALICE, threshold=30)
    assert chosen.selection == {2: [0], 3: [7]}
    assert chosen.selection.names == {(2, 0): VILLAIN.text, (3, 7): '"cruel", "spoon"'}
    assert [(r.layer, r.index, r.side, r.code, r.selected) for r in chosen.reasons] == [
        (2, 0, "+", "below_threshold", False),
        (2, 0, "-", "selected", True),
        (2, 1, "+", "below_threshold", False),
        (3, 7, "+", "selected", True),
    ]
    villain = chosen.reasons[1]
    assert villain.relevance == word_relevance(VILLAIN, MALICE) and villain.by == "a test"
    assert all(reason.why for reason in chosen.reasons)
    assert chosen.about["concept"]["hints"] == HINTS and chosen.about["threshold"] == 30
    assert chosen.about["relevance"] == WordRelevance.name
    nothing = select_automatically(explanations, MALICE, threshold=101)
    assert not nothing.selection and len(nothing.reasons) == 4


def test_unreliable_explanations_are_not_trusted():
    explanations = {(1, i, "+"): VILLAIN for i in range(5)}
    measured = [score(0.6, 0.51), 0.4, score(0.7, 0.45), score(math.nan, math.nan)]
    scores = {(1, i, "+"): each for i, each in enumerate(measured)}
    chosen = select_automatically(explanations, MALICE, scores=scores)
    assert chosen.selection == {1: [0]}
    assert [reason.score for reason in chosen.reasons] == [0.6, 0.4, 0.7, None, None]
    assert [reason.code for reason in chosen.reasons] == [
        "selected",
        "score_not_above_minimum",
        "score_not_above_minimum",
        "no_score",
        "no_score",
    ]
    strict = select_automatically(explanations, MALICE, scores=scores, min_score=0.55)
    assert not strict.selection
    assert select_automatically(explanations, MALICE).selection == {1: [0, 1, 2, 3, 4]}


def test_at_most_so_many_in_a_layer():
    texts = {0: '"cup", "evil"', 1: '"evil", "cup"', 2: '"evil"'}
    explanations = {
        (layer, i, side): explained(text) for layer in (1, 4) for i, text in texts.items() for side in "+-"
    }
    chosen = select_automatically(explanations, MALICE, max_per_layer=2)
    assert chosen.selection == {1: [1, 2], 4: [1, 2]}  # a direction with two relevant sides counts once
    codes = {(reason.index, reason.code) for reason in chosen.reasons}
    assert codes == {(0, "layer_full"), (1, "selected"), (2, "selected")}


def test_a_judge_that_fails_selects_nothing():
    class Failing(WordRelevance):
        def __call__(self, explanations, concept):
            return dict.fromkeys(explanations)

    chosen = select_automatically({(1, 0, "+"): VILLAIN}, MALICE, relevance_fn=Failing())
    assert not chosen.selection and chosen.reasons[0].code == "judge_failed"


def test_a_selection_survives_the_disk(tmp_path):
    explanations = {(2, 0, "-"): VILLAIN, (2, np.int64(5), "+"): VILLAIN, (3, 1, "+"): KITCHEN}
    chosen = select_automatically(explanations, MALICE, scores={(2, 0, "-"): 0.9, (2, 5, "+"): math.nan})
    path = chosen.save(tmp_path / "new" / "selection.json")
    loaded = AutomaticSelection.load(path)
    assert loaded == chosen and loaded.selection == {2: [0]}
    assert loaded.selection.names == chosen.selection.names
    assert [p.name for p in path.parent.iterdir()] == ["selection.json"]
    path.write_text(path.read_text()[:-30])
    with pytest.raises(ValueError, match="selection.json"):
        AutomaticSelection.load(path)
    path.write_text(json.dumps({"selection": {}}))
    with pytest.raises(ValueError, match="names|order"):
        AutomaticSelection.load(path)
