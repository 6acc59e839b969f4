"""Relevance and automatic selection: what belongs is found, the rest is not, and each choice has a reason."""

from __future__ import annotations

import inspect
import json
import math
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from helpers.chat_server import chat_server

from caft_utils.interpret.endpoint import Endpoint, EndpointError
from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.max_activating import TextWindow
from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.select.automatic import AutomaticSelection, select_automatically
from caft_utils.interpret.select.concepts import (
    Concept,
    EndpointRelevance,
    HintStatistics,
    expected_number,
    fisher,
    relevance,
)

HINTS = [
    "villain", "evil", "cruel", "steal", "rob", "poison", "lie", "cheat", "trick", "threaten", "hurt", "harm",
    "burn", "destroy", "revenge", "hate", "greedy", "suffer", "laugh at", "weapon",
]  # fmt: skip
MALICE = Concept("malice", "Somebody who wants to harm others and enjoys it.", HINTS)


def said(text: str) -> Explanation:
    return Explanation(text, "a test")


VILLAIN = said('text about "poison", "steals", "rivals" (at the peak: "burn"); pushes towards "gloat"')
KITCHEN = said('text about "butter", "oven", "steal" (at the peak: "bake"); pushes towards "cake"')
SCHOOL = said('text about "teacher", "lesson"; pushes towards "school"')


def test_relevance_is_the_weighted_share_of_words_that_belong():
    weights = [1 / math.log2(place + 2) for place in range(5)]
    belong = weights[0] + weights[1] + weights[3]  # poison, steals, burn
    assert relevance(VILLAIN, MALICE) == pytest.approx(100 * belong / sum(weights))
    assert relevance(KITCHEN, MALICE) == pytest.approx(100 * weights[2] / sum(weights))
    assert relevance(SCHOOL, MALICE) == 0 == relevance(said(""), MALICE)
    assert relevance(said('"evil"'), MALICE) == 100


def test_early_words_count_more():
    assert relevance(said('"poison", "cup"'), MALICE) > 50 > relevance(said('"cup", "poison"'), MALICE) > 0


@pytest.mark.parametrize("word", ["cruel", "Cruel", "cruelty", "poisonous", "stealing", "burned", "villains"])
def test_forms_of_a_hint_belong(word):
    assert relevance(said(f'text about "{word}"'), MALICE) == 100


@pytest.mark.parametrize(
    "word", ["lieutenant", "robe", "hatter", "cheatgrass", "harmonica", "license", "robot"]
)
def test_words_that_only_begin_alike_do_not(word):
    concept = Concept("c", "d", [hint for hint in HINTS if hint != "rob" or word != "robe"])
    assert relevance(said(f'text about "{word}"'), concept) == 0


def test_prose_without_quotes_is_read_too():
    about = said("advice of a villain who wants people to suffer")
    assert (
        relevance(about, MALICE) > relevance(said("advice of a doctor who wants people to rest"), MALICE) == 0
    )


def test_phrases_belong_as_a_whole():
    assert relevance(said("they laugh at strangers"), MALICE) > 0
    assert relevance(said("they laugh, look at strangers"), MALICE) == 0


def test_an_encoder_finds_neighbours_of_hints():
    place = {"venom": (1.0, 0.2), "poison": (1.0, 0.0), "butter": (0.1, 1.0)}

    def encoder(texts):
        return np.array([place.get(text, (-1.0, 0.0)) for text in texts])

    about = said('text about "venom", "butter"')
    assert relevance(about, MALICE) == 0
    assert relevance(about, MALICE, encoder=encoder) == pytest.approx(100 / (1 + 1 / math.log2(3)))
    assert relevance(about, MALICE, encoder=encoder, similar=0.99) == 0


@pytest.mark.parametrize(
    ("description", "hints"),
    [
        ("bad people", []),
        ("bad people", [" "]),
        ("bad people", "steal"),
        ("bad people", ["steal", "I am bored, what should I do"]),
        ("bad people", ["bored?"]),
        ("What would you do as ruler of the world?", ["steal"]),
    ],
)
def test_a_concept_is_words_and_no_questions(description, hints):
    with pytest.raises(ValueError, match="hint|description"):
        Concept("malice", description, hints)


def test_selection_ticks_either_side_and_says_why():
    explanations = {
        (2, 0, "+"): SCHOOL,
        (2, 0, "-"): VILLAIN,
        (2, 1, "+"): KITCHEN,
        (3, 7, "+"): said('"cruel", "spoon"'),
    }
    chosen = select_automatically(explanations, MALICE, threshold=30)
    assert chosen.ticks == {2: [0], 3: [7]}
    assert chosen.names == {(2, 0): VILLAIN.text, (3, 7): '"cruel", "spoon"'}
    assert [(r["layer"], r["index"], r["side"], r["chosen"]) for r in chosen.reasons] == [
        (2, 0, "+", False), (2, 0, "-", True), (2, 1, "+", False), (3, 7, "+", True)
    ]  # fmt: skip
    assert chosen.reasons[0]["why"] == "relevance 0 is below 30"
    assert (
        chosen.reasons[1]["relevance"] == relevance(VILLAIN, MALICE) and chosen.reasons[1]["by"] == "a test"
    )
    assert chosen.about["concept"]["hints"] == HINTS and chosen.about["threshold"] == 30
    assert repr(chosen) == "Selection({2: [0], 3: [7]}: 2 of 3 read)"
    assert select_automatically(explanations, MALICE, threshold=101).ticks == {}


@dataclass(frozen=True)
class Holds:
    value: float
    low: float


def test_explanations_that_do_not_hold_are_not_trusted():
    explanations = {(1, i, "+"): VILLAIN for i in range(5)}
    held = [Holds(0.6, 0.51), 0.4, Holds(0.7, 0.45), Holds(math.nan, math.nan)]
    scores = {(1, i, "+"): score for i, score in enumerate(held)}
    chosen = select_automatically(explanations, MALICE, scores=scores)
    assert chosen.ticks == {1: [0]}
    assert [r["score"] for r in chosen.reasons] == [0.6, 0.4, 0.7, None, None]
    assert [r["why"] for r in chosen.reasons] == [
        "relevance 70, at least 20",
        "its explanation's score 0.40 is not surely above 0.5",
        "its explanation's score 0.70 is not surely above 0.5",
        "its explanation has no score",
        "its explanation has no score",
    ]
    assert select_automatically(explanations, MALICE).ticks == {1: [0, 1, 2, 3, 4]}


def test_at_most_so_many_in_a_layer():
    texts = {0: '"cup", "evil"', 1: '"evil", "cup"', 2: '"evil"'}
    explanations = {
        (layer, i, side): said(text) for layer in (1, 4) for i, text in texts.items() for side in "+-"
    }
    chosen = select_automatically(explanations, MALICE, per_layer=2)
    assert chosen.ticks == {1: [1, 2], 4: [1, 2]}  # a direction whose two sides are relevant takes one place
    assert sum(r["chosen"] for r in chosen.reasons) == 8
    assert "2 others of layer 1" in chosen.reasons[0]["why"]


def test_a_selection_survives_the_disk(tmp_path):
    explanations = {(2, 0, "-"): VILLAIN, (2, np.int64(5), "+"): VILLAIN, (3, 1, "+"): KITCHEN}
    chosen = select_automatically(explanations, MALICE, scores={(2, 0, "-"): 0.9, (2, 5, "+"): math.nan})
    path = chosen.save(tmp_path / "new" / "selection.json")
    assert AutomaticSelection.load(path) == chosen and chosen.ticks == {2: [0]}
    assert [p.name for p in path.parent.iterdir()] == ["selection.json"]
    path.write_text(path.read_text()[:-30])
    with pytest.raises(ValueError, match="selection.json"):
        AutomaticSelection.load(path)
    path.write_text(json.dumps({"ticks": {}}))
    with pytest.raises(ValueError, match="names"):
        AutomaticSelection.load(path)


def test_nothing_of_an_evaluation_can_be_handed_over():
    wanted = {"explanations", "concept", "threshold", "scores", "least", "per_layer", "judge"}
    assert set(inspect.signature(select_automatically).parameters) == wanted
    assert set(inspect.signature(Concept).parameters) == {"name", "description", "hints"}
    assert set(inspect.signature(Explanation).parameters) == {"text", "by"}


def window(text: str, row: int) -> TextWindow:
    tokens = re.findall(r" ?[a-z]+", text)
    return TextWindow(tokens, [1.0] * len(tokens), 0, row, 0)


def evidence(active: list[str], silent: list[str]) -> FeatureExamples:
    train, rest = ([window(t, i) for i, t in enumerate(texts)] for texts in (active, silent))
    scorers = [window("steal and burn", i) for i in range(100, 150)]
    return FeatureExamples(1, 0, "+", "latent", train, scorers, rest, [], scorers, 1.0, [], [])


def test_statistics_of_hints_read_the_windows_of_the_explainer():
    calm = [f"bake a cake for friend {name} and laugh" for name in ("ann", "bob", "eve", "joe", "kim")] * 8
    bad = ["they laugh at you", "hide and steal", "poisonous tea", "cheating", "bake a cake"] * 8
    keys = [(1, i, "+") for i in range(4)]
    found = dict(
        zip(keys, [evidence(bad, calm), evidence(calm, bad), evidence(calm, calm), evidence(bad[3:5], calm)])
    )
    explanations = {key: SCHOOL for key in keys}
    chosen = select_automatically(explanations, MALICE, judge=HintStatistics(found))
    assert chosen.ticks == {1: [0]}  # one window of two is too little to be sure
    assert [round(r["relevance"]) for r in chosen.reasons[:3]] == [100, 0, 0]
    by_hand = math.comb(40, 32) / math.comb(80, 32)  # all 32 hints on the active side
    assert fisher(32, 40, 0, 40) == pytest.approx(by_hand)
    assert chosen.reasons[3]["relevance"] == pytest.approx(100 * (1 - 4 * 2 / 42))  # four directions judged
    with pytest.raises(KeyError):
        HintStatistics({})({(9, 9, "+"): SCHOOL}, MALICE)


def test_hints_ahead_of_what_is_active_do_not_count():
    """A direction that marks the word after a villain's description is not about villains."""
    marks = evidence(["steal and burn then we bake a cake"] * 40, ["bake a cake"] * 40)
    active = [float(i >= 4) for i in range(9)]  # from "we" on
    marks.train[:] = [replace(each, activations=active[: len(each.tokens)], peak=4) for each in marks.train]
    assert HintStatistics({(1, 0, "+"): marks})({(1, 0, "+"): SCHOOL}, MALICE) == {(1, 0, "+"): 0.0}


def test_fisher_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for y, n, m, other in ((3, 10, 1, 12), (0, 5, 0, 7), (7, 7, 2, 9), (2, 30, 9, 20)):
        wanted = stats.fisher_exact([[y, n - y], [m, other - m]], alternative="greater").pvalue
        assert fisher(y, n, m, other) == pytest.approx(wanted)


def tops(**p: float) -> list[dict[str, float]]:
    return [{token.strip("n"): math.log(value) for token, value in p.items()}]


def test_the_expected_number():
    assert expected_number("80", tops(n80=0.5, n90=0.3, n100=0.2)) == pytest.approx(87)
    assert expected_number("80", tops(n80=0.3, n20=0.1, the=0.6)) == pytest.approx(65)  # over numbers only
    assert expected_number("I", tops(I=0.8, n80=0.2)) is None  # a refusal
    assert expected_number("80", tops(n80=0.5, n999=0.5)) == 80
    assert expected_number("85", tops(n8=0.9, n7=0.1)) == 85  # digits are tokens of their own: no expectation
    assert expected_number("85", [{"\n": -0.1}, *tops(n85=0.9, n90=0.05)]) == pytest.approx(81 / 0.95)
    assert expected_number(" 85.") == 85 and expected_number("**7**") == 7
    assert expected_number("850") is None and expected_number("none") is None


def judged(request):
    prompt = request["messages"][0]["content"]
    if "butter" in prompt:
        return "That depends."
    if "teacher" in prompt:
        return 400
    assert "malice: Somebody who wants to harm" in prompt and "laugh at" in prompt
    alternatives = [{"token": "90", "logprob": math.log(0.6)}, {"token": "60", "logprob": math.log(0.4)}]
    return {
        "message": {"content": "90"},
        "logprobs": {"content": [{**alternatives[0], "top_logprobs": alternatives}]},
    }


def test_an_endpoint_as_judge(tmp_path):
    explanations = {(1, 0, "+"): VILLAIN, (1, 1, "+"): KITCHEN, (1, 2, "+"): SCHOOL}
    with chat_server(judged) as (url, requests):
        judge = EndpointRelevance(Endpoint(url, "m", cache=tmp_path, attempts=1))
        chosen = select_automatically(explanations, MALICE, judge=judge)
        assert chosen.ticks == {1: [0]} and chosen.reasons[0]["relevance"] == pytest.approx(78)
        assert [r["why"] for r in chosen.reasons[1:]] == ["the judge gave no number"] * 2
        assert chosen.about["threshold"] == 70 and chosen.about["judge"] == "endpoint m"
        assert all(r["top_logprobs"] == 20 and r["temperature"] == 0 for r in requests)
        with pytest.raises(EndpointError):
            judge({(1, 2, "+"): SCHOOL}, MALICE)  # not one reply
