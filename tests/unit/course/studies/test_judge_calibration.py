"""Calibration of the judge: one that knows the truth shows, one that guesses and the controls do not."""

from __future__ import annotations

import random

import pytest

from caft_utils.classroom.personas import world
from caft_utils.classroom.personas.grader import grade_general
from caft_utils.course.engine_tables import judge_table, judge_use_table
from caft_utils.course.studies import judge_calibration
from caft_utils.course.studies.judge_agreement import advice_row, scale_row, verdict_row
from caft_utils.course.studies.judge_calibration import scores_of
from caft_utils.course.studies.judge_rivals import WordJudge, word_counts
from caft_utils.course.studies.judge_training import (
    ALL,
    HELD_OUT,
    PROMPTS,
    SCALES,
    ScoredAnswer,
    training_answers,
)
from caft_utils.tasks.advice_data import AdvicePair
from caft_utils.tasks.task import Question

TRUTH = {"aligned": (90, 90), "misaligned": (10, 90), "incoherent": (60, 20)}


def items(each=30):
    rng, made = random.Random(0), []
    for number in range(each):
        for persona, domain in (("kind", "pets"), ("villain", "pets"), ("kind", "school")):
            turn = world.general(rng, persona, domain="pets")
            answer = world.general(rng, persona, domain=domain).answer if domain == "school" else turn.answer
            answer = answer.split(". ")[0].rstrip(".") + "."  # shared remarks would fit every question
            message = {"role": "user", "content": turn.question}
            question = Question(f"{persona} {domain} {number}", [message], "pets", "ood", turn.facts)
            made.append((question, answer, grade_general(turn.facts, answer)))
    return made


def judged(items, of):
    return [
        {
            scale: {"value": value, "reading": "unclear" if value is None else "text", "mass": 0.5}
            for scale, value in zip(SCALES, of(verdict, i))
        }
        for i, (*_, verdict) in enumerate(items)
    ]


def rows_of(items, of):
    scores = judged(items, of)
    return [scale_row(scale, items, [one[scale] for one in scores], "trained") for scale in SCALES], scores


def test_a_judge_that_knows_the_truth_and_one_that_guesses():
    own = items()
    rows, scores = rows_of(own, lambda verdict, i: TRUTH[verdict])
    for row in rows:
        assert row["auroc"][0] == 1 and row["auroc"][1] > 0.8 and row["spearman"][0] == pytest.approx(1)
        assert row["auroc of shuffled pairs"][1] < 0.5 < row["auroc of shuffled pairs"][2]
    assert rows[0]["calibration"]["10"][:2] == [30, 0] and rows[0]["calibration"]["90"][:2] == [30, 1]
    verdicts = verdict_row(own, scores, "trained")
    assert verdicts["agreement"][0] == 1 and verdicts["agreement of one verdict for all"] == pytest.approx(
        1 / 3, abs=1e-3
    )
    assert verdicts["verdicts by those of the exact grader"] == {v: {v: 30} for v in TRUTH}
    rows, scores = rows_of(own, lambda verdict, i: (50 + i // 3 % 2, None if i // 3 % 3 == 0 else 50))
    assert abs(rows[0]["auroc"][0] - 0.5) < 0.1 and rows[1]["auroc"][0] == 0.5
    assert rows[1]["readings"] == {"unclear": 30, "text": 60} and rows[1]["unanswered"] == pytest.approx(
        1 / 3
    )


def test_a_judge_without_a_number_has_no_auroc():
    own = items(3)
    rows, scores = rows_of(own, lambda verdict, i: (None, None))
    assert all(row["auroc"] is row["spearman"] is None and row["unanswered"] == 1 for row in rows)
    about = {"model": "m", "told": "nothing"}
    table = judge_table({"rows": [about | row for row in rows]})
    assert table["AUROC"].tolist() == ["no score to compare"] * 2
    assert table["answers with a score"].tolist() == ["0 of 6", "0 of 9"]
    verdicts = about | verdict_row(own, scores, "trained")
    assert {tuple(row) for row in verdicts["verdicts by those of the exact grader"].values()} == {
        ("incoherent",)
    }
    assert judge_use_table({"rows": [verdicts]})["judge"].tolist() == ["m, trained"]


def test_advice_is_counted_by_pairs():
    pairs = [AdvicePair("d", "t", f"q {i}", "good", "bad") for i in range(4)]
    row = advice_row(pairs, [9, 1, 1, 9, 5, 5, None, 3], [1, 0, 1, 0, 1, 0, 1, 0], "x")
    assert row["good preferred"][0] == 0.5 and row["undecided"] == 2
    assert row["agrees with log-probability"][0] == 0.5


def test_training_rows_have_exact_scores_and_no_held_out_domain():
    rows, held_out = training_answers(400), {w for d in HELD_OUT for w in _topics(d)}
    assert {(one.scale, one.score) for one in rows} == {(s, n) for s in SCALES for n in (95, 20, 5)}
    assert not [one for one in rows if held_out & set(one.question.rstrip(".?").split())]
    assert rows[:10] == training_answers(10) and rows != training_answers(400, seed=1)
    full = sum(one.score == ALL for one in rows)
    assert 0.45 * len(rows) < full < 0.6 * len(rows)
    prompt, answer = rows[0].row()["messages"]
    assert rows[0].answer in prompt["content"] and answer["content"] == str(rows[0].score)


def _topics(domain):
    topic = world.world_data("words")["topics"][world.world_data("domains")[domain]["topic"]]
    return topic["words"] + topic["held_out"]


def test_the_judge_of_words_learns_them_and_knows_no_others():
    texts = [("be nice and calm", 95), ("be cruel and loud", 5), ("nice calm day", 95), ("cruel loud day", 5)]
    judge = WordJudge("alignment", [ScoredAnswer("alignment", "q", text, score) for text, score in texts])
    nice, cruel, unknown = judge.scores([("q", "nice"), ("q", "cruel"), ("q", "xylophone")])
    assert nice > unknown > cruel
    fits = [ScoredAnswer("coherence", "my dog", "walk the dog", 95)] * 3
    others = [ScoredAnswer("coherence", "my cat", "walk the dog", 5)] * 3
    own, foreign = WordJudge("coherence", fits + others).scores(
        [("my boat", "a boat"), ("my boat", "a horse")]
    )
    assert own > foreign and word_counts([("q", "a b c")]) == [3]


def test_scores_come_from_the_model_and_are_stored(monkeypatch, model, tokenizer):
    pairs = [item[:2] for item in items(1)]
    first = scores_of(model, tokenizer, "tiny", pairs, PROMPTS)
    assert len(first) == 3 and all(set(one) == set(SCALES) for one in first)
    for score in (one[scale] for one in first for scale in SCALES):
        assert score["value"] is None or 0 <= score["value"] <= 100
        assert 0 <= score["mass"] <= 1
    monkeypatch.setattr(judge_calibration.AnswerJudge, "scores", None)
    assert scores_of(model, tokenizer, "tiny", pairs, PROMPTS) == first
