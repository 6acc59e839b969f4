"""`score_all` scores an explanation by each of a list of scorers."""

from __future__ import annotations

import pytest
from helpers.planted import EXPLANATIONS, planted

from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.score import Detection, Embedding, Fuzzing, score_all
from caft_utils.interpret.score.word_overlap import WordOverlap


def test_scores_have_the_names_and_the_order_of_the_scorers():
    examples, judge = planted("pets", n=4), WordOverlap()
    scorers = [Fuzzing(judge), Detection(judge), Embedding()]
    scores = score_all(scorers, Explanation(EXPLANATIONS["pets"], "a test"), examples)
    assert list(scores) == ["fuzzing", "detection", "embedding"]
    assert scores == {scorer.name: scorer(EXPLANATIONS["pets"], examples) for scorer in scorers}


def test_two_scorers_of_one_name_are_refused():
    judge = WordOverlap()
    with pytest.raises(ValueError, match="detection"):
        score_all([Detection(judge), Detection(judge)], "x", planted("pets", n=4))
