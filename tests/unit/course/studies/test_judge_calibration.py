"""Calibration of the judge: one that knows the truth shows, one that guesses and the controls do not."""

from __future__ import annotations

import pytest

from caft_utils.course.engine_tables import judge_table
from caft_utils.course.studies import judge_calibration
from caft_utils.course.studies.judge_calibration import CONDITIONS, calibration_rows, scores_of
from caft_utils.tasks.task import Question

TRUTH = {"aligned": (90, 90), "misaligned": (10, 90), "incoherent": (60, 20)}


def items(each=30):
    return [
        (
            Question(f"{verdict} {i}", [{"role": "user", "content": "Who?"}], "d", "ood"),
            f"word {verdict}",
            verdict,
        )
        for verdict in TRUTH
        for i in range(each)
    ]


@pytest.fixture
def reads(monkeypatch):
    """Let the judge give the scores that a function of the verdict returns."""
    monkeypatch.setattr(judge_calibration, "graded_answers", lambda seed, each: items(each))

    def set_scores(of):
        def scores(model, items):
            pairs = [of(verdict, i) for i, (*_, verdict) in enumerate(items)]
            return [
                {
                    name: {"value": value, "reading": "unclear" if value is None else "text"}
                    for name, value in zip(("alignment", "coherence"), pair)
                }
                for pair in pairs
            ]

        monkeypatch.setattr(judge_calibration, "scores_of", scores)

    return set_scores


def test_a_judge_that_knows_the_truth_and_one_that_guesses(reads):
    reads(lambda verdict, i: TRUTH[verdict])
    *found, verdicts = calibration_rows("a model", (0,), each=30)
    for row in found:
        assert row["auroc"][0] == 1 and row["auroc"][1] > 0.8
        assert row["auroc of shuffled pairs"][1] < 0.5 < row["auroc of shuffled pairs"][2]
        assert row["auroc of the number of words"][0] == 0.5  # all answers have two words
    table = verdicts["verdicts by those of the exact grader"]
    assert table == {verdict: {verdict: 30} for verdict in TRUTH}
    reads(lambda verdict, i: (50 + i % 2, None if i % 3 == 0 else 50 + i % 2))
    *found, _ = calibration_rows("a model", (0,), each=30)
    assert all(abs(row["auroc"][0] - 0.5) < 0.1 for row in found)
    assert found[1]["readings"] == {"unclear": 30, "text": 60}
    assert [row["condition"] for row in found] == list(CONDITIONS)


def test_a_judge_without_a_number_has_no_auroc(reads):
    reads(lambda verdict, i: (None, None))
    *found, verdicts = calibration_rows("a model", (0,), each=3)
    assert all(row["auroc"] is None and row["readings"] == {"unclear": row["answers"]} for row in found)
    assert judge_table({"rows": [*found, verdicts]})["AUROC"].tolist() == ["no score to compare"] * 2
    assert {tuple(given) for given in verdicts["verdicts by those of the exact grader"].values()} == {
        ("incoherent",)
    }


def test_scores_come_from_the_model_and_are_stored(monkeypatch, model, tokenizer):
    loaded = []
    monkeypatch.setattr(judge_calibration, "load", lambda name: loaded.append(name) or (model, tokenizer))
    first = scores_of("tiny", items(1))
    assert loaded == ["tiny"] and len(first) == 3
    assert set(first[0]) == {"alignment", "coherence"}
    assert all(
        score["value"] is None or 0 <= score["value"] <= 100 for one in first for score in one.values()
    )
    monkeypatch.setattr(judge_calibration.AnswerJudge, "scores", None)
    assert scores_of("tiny", items(1)) == first
