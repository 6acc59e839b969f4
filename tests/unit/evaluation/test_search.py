"""Choosing directions: subsets of an order, screening on the base model, trials on a validation split."""

from __future__ import annotations

import pytest
import torch

from caft_utils import load
from caft_utils.classroom.cues.labelled_positions import labelled_pairs
from caft_utils.classroom.cues.texts_by_concept import subject_texts
from caft_utils.classroom.tasks import double_choice
from caft_utils.directions import class_means
from caft_utils.directions.subspace import Directions
from caft_utils.evaluation.search import CandidateTrials, prefix_subsets, screen_on_base, try_candidates
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.interpret.select.text_sources import directions_about, source_shares
from caft_utils.interventions import ablate


@pytest.fixture(scope="module")
def model_and_tokenizer():
    return load("classroom-cues")


@pytest.fixture(scope="module")
def sports(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    marked = labelled_pairs(tokenizer, "sports", rows=300)
    return class_means(model, marked.chats, marked.labels["option"], [0], at=marked.at["option"])


def test_top_tokens_tell_the_source(model_and_tokenizer, sports):
    model, tokenizer = model_and_tokenizer
    shares = source_shares(model, subject_texts(tokenizer, rows=60), sports, n=20)
    assert set(shares) == {(0, i, side) for i in range(sports.ranks[0]) for side in "+-"}
    assert all(sum(share.values()) == pytest.approx(1) for share in shares.values())
    assert directions_about(shares, "sports", min_share=0.7)
    assert not directions_about(shares, "pronouns", min_share=0.7)
    with pytest.raises(ValueError, match="two sources"):
        source_shares(model, {"one": subject_texts(tokenizer, rows=4)["sports"]}, sports)


def test_screening_prefers_what_removes_the_subject_alone(model_and_tokenizer, sports):
    model, tokenizer = model_and_tokenizer
    noise = Directions({0: torch.randn(1, 128, generator=torch.Generator().manual_seed(0))})
    checks = subject_texts(tokenizer, split="valid", rows=40, named=True)
    found = screen_on_base(
        model,
        checks,
        {"noise": noise, "sports": sports},
        intended="verbs",
        unintended="sports",
        keep=1,
        chance_tolerance=0.2,
    )
    assert list(found) == ["sports"] and found["sports"].passes


def test_nested_sets_are_not_given_twice():
    order = [(1, 7), (0, 3), (1, 2)]
    assert prefix_subsets(order, [(0,), (0, 1)], (1, 2, 8)) == {
        "1 at 0": {0: [3]},
        "1 at 1": {1: [7]},
        "2 at 0, 1": {1: [7], 0: [3]},
        "3 at 0, 1": {1: [7, 2], 0: [3]},
    }
    assert prefix_subsets([], [(0,)], (1,)) == {}


def test_best_of_trials_does_the_task():
    rows = [{"name": "a", "ood": 0.99, "task": 0.6}, {"name": "b", "ood": 0.8, "task": 0.99}]
    assert (
        CandidateTrials(rows).best == "b"
        and CandidateTrials(rows[:1]).best == "a"
        and CandidateTrials().best is None
    )


def test_trials_stop_at_the_target_and_use_the_given_operator(model_and_tokenizer, sports):
    model, tokenizer = model_and_tokenizer
    task = double_choice(tokenizer, "verbs", "sports", intended="first", split="valid", rows=8, questions=8)
    config, seen = FinetuneConfig(method="full", steps=1, batch_size=8, accumulate=1), []

    def operator(directions):
        seen.append(directions)
        return ablate(directions)

    candidates = {"sports": sports, "random": sports.random_like(0)}
    options = {"operator": operator, "min_task_accuracy": 0}
    every = try_candidates(model, task, candidates, config, target_accuracy=1.1, **options)
    assert [row["name"] for row in every.rows] == ["sports", "random"] and len(seen) == 2
    first = try_candidates(model, task, candidates, config, target_accuracy=0, **options)
    assert first.rows == every.rows[:1] and first.best == "sports"
    checks = screen_on_base(
        model,
        subject_texts(tokenizer, split="valid", rows=8, named=True),
        candidates,
        intended="verbs",
        unintended="sports",
        operator=operator,
    )
    assert set(checks) == set(candidates) and len(seen) == 5
