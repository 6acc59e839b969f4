"""The contract of every scorer. To test another one, add a case to CASES."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
from helpers.copier import COPIED, OTHERS, copied_direction, copied_explanation, make_copier
from helpers.planted import RuleJudge, planted

from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.score import (
    Detection,
    Embedding,
    Fuzzing,
    InterventionScore,
    Score,
    Scorer,
    Simulation,
    SteeredGenerator,
    Surprisal,
)
from caft_utils.interpret.score.word_overlap import WordOverlap

RIGHT, WRONG = copied_explanation("code"), copied_explanation("talk")
PROMPTS = ["open the file", "with you are", "to do"] * 4


class World(NamedTuple):
    """A model that predicts the words it has read, and a direction that makes it write those of "code"."""

    model: Any
    tokenizer: Any
    judge: Any

    def intervention(self) -> InterventionScore:
        generator = SteeredGenerator(self.model, self.tokenizer, PROMPTS, max_new_tokens=6)
        vector = copied_direction(self.model, self.tokenizer, "code")
        return InterventionScore(self.judge, generator, lambda layer, index: vector)


@dataclass(frozen=True)
class Case:
    """chance: the score of an explanation without any relation. asks_judge: uses `World.judge`.

    reads_windows: scores the test windows, so that without any there is no score.
    """

    make: Callable[[World], Scorer]
    lowest: float = 0.0
    highest: float = 1.0
    chance: float = 0.5
    asks_judge: bool = True
    reads_windows: bool = True


CASES = {
    "detection": Case(lambda world: Detection(world.judge)),
    "detection (hard)": Case(lambda world: Detection(world.judge, hard=True)),
    "fuzzing": Case(lambda world: Fuzzing(world.judge)),
    "surprisal": Case(lambda world: Surprisal(world.model, world.tokenizer), asks_judge=False),
    "surprisal (hard)": Case(
        lambda world: Surprisal(world.model, world.tokenizer, hard=True), asks_judge=False
    ),
    "embedding": Case(lambda world: Embedding(), asks_judge=False),
    "embedding (hard)": Case(lambda world: Embedding(hard=True), asks_judge=False),
    "intervention": Case(World.intervention, -math.inf, math.inf, chance=0.0, reads_windows=False),
    "simulation": Case(lambda world: Simulation(world.judge), lowest=-1.0, chance=0.0),
}


@pytest.fixture(scope="module")
def world(tokenizer) -> World:
    return World(make_copier(tokenizer), tokenizer, WordOverlap())


@pytest.fixture(scope="module")
def examples():
    return planted("code", topics=COPIED, filler=OTHERS)


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture
def name(request, case) -> str:
    return next(name for name, each in CASES.items() if each is case)


def test_the_score_lies_in_its_interval_and_on_its_scale(case, name, world, examples):
    score = case.make(world)(RIGHT, examples)
    assert isinstance(score, Score) and score.name == name == case.make(world).name
    assert case.lowest <= score.low <= score.value <= score.high <= case.highest
    assert score.n > 0 and score.failures == 0


def test_a_right_explanation_scores_better_than_a_wrong_one(case, world, examples):
    scorer = case.make(world)
    right, wrong = scorer(RIGHT, examples), scorer(WRONG, examples)
    assert right.low > case.chance and right.value > wrong.value
    assert wrong.low <= case.chance


def test_the_same_input_gives_the_same_score(case, world, examples):
    first, second = (case.make(world)(RIGHT, examples) for _ in range(2))
    assert first == second
    assert case.make(world)(Explanation(RIGHT, "a test"), examples) == first


@pytest.mark.parametrize(
    ("shown", "scored"),
    [
        ("explainer_windows", "scorer_windows"),
        ("explainer_windows", "scorer_negatives"),
        ("explainer_negatives", "hard_negatives"),
    ],
)
def test_a_row_that_the_explainer_saw_is_refused(case, world, examples, shown, scored):
    leaked = replace(getattr(examples, scored)[0], row=getattr(examples, shown)[0].row)
    leaking = replace(examples, **{scored: [leaked, *getattr(examples, scored)[1:]]})
    with pytest.raises(ValueError, match=str(leaked.row)):
        case.make(world)(RIGHT, leaking)


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.asks_judge])
def test_replies_that_cannot_be_read_are_reported(case, world, examples):
    mute = case.make(world._replace(judge=RuleJudge(lambda window, marks: None)))
    nothing = mute(RIGHT, examples)
    assert nothing.failures == 1 and nothing.n == 0
    assert all(math.isnan(figure) for figure in (nothing.value, nothing.low, nothing.high))

    class Mumbler(WordOverlap):
        def __call__(self, *args):
            return [None if i % 4 == 0 else p for i, p in enumerate(super().__call__(*args))]

    some = case.make(world._replace(judge=Mumbler()))(RIGHT, examples)
    assert 0.2 < some.failures < 0.6 and some.low > case.chance


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.reads_windows])
def test_nothing_to_compare_is_not_a_number(case, world, examples):
    empty = replace(examples, scorer_windows=[], scorer_negatives=[], hard_negatives=[])
    score = case.make(world)(RIGHT, empty)
    assert math.isnan(score.value) and score.failures == 0 and score.n == 0
