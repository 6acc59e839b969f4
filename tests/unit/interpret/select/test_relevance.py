"""Relevance: what belongs to a concept is found in explanations and in windows, and the rest is not."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.malice import HINTS, KITCHEN, MALICE, SCHOOL, VILLAIN, explained
from scipy.stats import fisher_exact

from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.select.automatic import select_automatically
from caft_utils.interpret.select.concepts import Concept
from caft_utils.interpret.select.relevance import (
    HintTestRelevance,
    WordRelevance,
    fisher_p_value,
    word_relevance,
)


def test_relevance_is_the_weighted_share_of_words_that_belong():
    weights = [1 / math.log2(place + 2) for place in range(5)]
    belong = weights[0] + weights[1] + weights[3]  # poison, steals, burn
    assert word_relevance(VILLAIN, MALICE) == pytest.approx(100 * belong / sum(weights))
    assert word_relevance(KITCHEN, MALICE) == pytest.approx(100 * weights[2] / sum(weights))
    assert word_relevance(SCHOOL, MALICE) == 0 == word_relevance(explained(""), MALICE)
    assert word_relevance(explained('"evil"'), MALICE) == 100


def test_early_words_count_more():
    assert (
        word_relevance(explained('"poison", "cup"'), MALICE)
        > 50
        > word_relevance(explained('"cup", "poison"'), MALICE)
        > 0
    )


@pytest.mark.parametrize("word", ["cruel", "Cruel", "cruelty", "poisonous", "stealing", "burned", "villains"])
def test_forms_of_a_hint_belong(word):
    assert word_relevance(explained(f'text about "{word}"'), MALICE) == 100


@pytest.mark.parametrize(
    "word", ["lieutenant", "robe", "hatter", "cheatgrass", "harmonica", "license", "robot"]
)
def test_words_that_only_begin_alike_do_not(word):
    concept = Concept("c", "d", [hint for hint in HINTS if hint != "rob" or word != "robe"])
    assert word_relevance(explained(f'text about "{word}"'), concept) == 0


def test_prose_without_quotes_is_read_too():
    about = explained("advice of a villain who wants people to suffer")
    assert (
        word_relevance(about, MALICE)
        > word_relevance(explained("advice of a doctor who wants people to rest"), MALICE)
        == 0
    )


def test_phrases_belong_as_a_whole():
    assert word_relevance(explained("they laugh at strangers"), MALICE) > 0
    assert word_relevance(explained("they laugh, look at strangers"), MALICE) == 0


def test_an_encoder_finds_neighbours_of_hints():
    place = {"venom": (1.0, 0.2), "poison": (1.0, 0.0), "butter": (0.1, 1.0)}

    def encoder(texts):
        return np.array([place.get(text, (-1.0, 0.0)) for text in texts])

    about = explained('text about "venom", "butter"')
    assert word_relevance(about, MALICE) == 0
    assert word_relevance(about, MALICE, encoder=encoder) == pytest.approx(100 / (1 + 1 / math.log2(3)))
    assert word_relevance(about, MALICE, encoder=encoder, min_similarity=0.99) == 0


def test_the_relevance_of_words_by_key():
    explanations = {(1, 0, "+"): VILLAIN, (1, 0, "-"): SCHOOL}
    assert WordRelevance()(explanations, MALICE) == {
        key: word_relevance(each, MALICE) for key, each in explanations.items()
    }


def window(text: str, row: int) -> TextWindow:
    tokens = re.findall(r" ?[a-z]+", text)
    return TextWindow(tokens, [1.0] * len(tokens), 0, row, 0)


def counted_examples(active: list[str], silent: list[str]) -> FeatureExamples:
    train, rest = ([window(t, i) for i, t in enumerate(texts)] for texts in (active, silent))
    scorers = [window("steal and burn", i) for i in range(100, 150)]
    return FeatureExamples(1, 0, "+", "latent", train, scorers, rest, [], scorers, 1.0, [], [])


def test_statistics_of_hints_read_the_windows_of_the_explainer():
    calm = [f"bake a cake for friend {name} and laugh" for name in ("ann", "bob", "eve", "joe", "kim")] * 8
    bad = ["they laugh at you", "hide and steal", "poisonous tea", "cheating", "bake a cake"] * 8
    keys = [(1, i, "+") for i in range(4)]
    found = dict(
        zip(
            keys,
            [
                counted_examples(bad, calm),
                counted_examples(calm, bad),
                counted_examples(calm, calm),
                counted_examples(bad[3:5], calm),
            ],
        )
    )
    explanations = {key: SCHOOL for key in keys}
    chosen = select_automatically(explanations, MALICE, relevance_fn=HintTestRelevance(found))
    assert chosen.selection == {1: [0]}  # one window of two is too little to be sure
    assert [round(reason.relevance) for reason in chosen.reasons[:3]] == [100, 0, 0]
    by_hand = math.comb(40, 32) / math.comb(80, 32)  # all 32 hints on the active side
    assert fisher_p_value(32, 40, 0, 40) == pytest.approx(by_hand)
    assert chosen.reasons[3].relevance == pytest.approx(100 * (1 - 4 * 2 / 42))  # four directions judged
    with pytest.raises(KeyError):
        HintTestRelevance({})({(9, 9, "+"): SCHOOL}, MALICE)


def test_hints_ahead_of_what_is_active_do_not_count():
    """A direction that marks the word after a villain's description is not about villains."""
    marks = counted_examples(["steal and burn then we bake a cake"] * 40, ["bake a cake"] * 40)
    active = [float(i >= 4) for i in range(9)]  # from "we" on
    marks.explainer_windows[:] = [
        replace(each, activations=active[: len(each.tokens)], peak=4) for each in marks.explainer_windows
    ]
    assert HintTestRelevance({(1, 0, "+"): marks})({(1, 0, "+"): SCHOOL}, MALICE) == {(1, 0, "+"): 0.0}


def test_the_p_value_is_that_of_fishers_exact_test():
    for y, n, m, n_other in ((3, 10, 1, 12), (0, 5, 0, 7), (7, 7, 2, 9), (2, 30, 9, 20)):
        table = [[y, n - y], [m, n_other - m]]
        assert fisher_p_value(y, n, m, n_other) == pytest.approx(fisher_exact(table, "greater").pvalue)
    assert fisher_p_value(0, 0, 1, 5) == fisher_p_value(3, 5, 0, 0) == 1.0
