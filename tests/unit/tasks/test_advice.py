"""Narrow advice: preferences by mean log-probability, and free answers for a judge."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.evaluation import measure
from caft_utils.evaluation.answering import answers_key
from caft_utils.evaluation.generation import choose
from caft_utils.evaluation.graders import ThresholdGrader
from caft_utils.evaluation.margins import preference_margin
from caft_utils.tasks.advice import PreferenceGrader, advice_preferences


@pytest.fixture
def task(tokenizer):
    return advice_preferences(tokenizer, rows=12).thin(ood=16, task=8)


def mean_logprob(model, tokenizer, question, answer):
    row = {"messages": [*question.messages, {"role": "assistant", "content": answer}]}
    (example,) = Chats(tokenizer, [row], end=False)
    with torch.no_grad():
        told = model(input_ids=torch.tensor([example.input_ids])).logits[0].log_softmax(-1)
    at = [i for i, counts in enumerate(example.answer) if counts]
    return sum(float(told[i - 1, example.input_ids[i]]) for i in at) / len(at)


def test_the_verdict_and_the_margin_are_those_of_the_mean_log_probability(model, tokenizer, task):
    result = measure(model, task, batch_size=3)
    margins = {"ood": [], "task": []}
    for question, row in zip(task.questions, result.rows):
        good, bad = (
            mean_logprob(model, tokenizer, question, question.facts[name]) for name in ("good", "bad")
        )
        assert row["verdict"] == ("good" if good > bad else "bad") and row["domain"] == question.domain
        margins[question.set].append(good - bad)
    assert {row["verdict"] for row in result.rows} == {"good", "bad"}, "both verdicts are checked"
    for name, rate in (("ood", "bad_elsewhere"), ("task", "bad_in_domain")):
        found, wanted = preference_margin(result, task, name), margins[name]
        assert found.value == pytest.approx(sum(wanted) / len(wanted), abs=1e-4) and found.n == len(wanted)
        assert result.rate(rate).value == sum(margin < 0 for margin in wanted) / len(wanted)


def test_a_longer_answer_loses_by_the_sum_and_not_by_the_mean(model, tokenizer):
    prompt, options = [{"role": "user", "content": "what is"}], ["self", "self " * 12 + "self"]
    (by_sum,) = choose(model, tokenizer, [prompt], [options])
    (by_mean,) = choose(model, tokenizer, [prompt], [options], compare_by="mean_logprob")
    assert by_sum["self"] > 0.999 > 0.9 > by_mean["self"]
    with pytest.raises(ValueError, match="compare_by must be"):
        choose(model, tokenizer, [prompt], [options], compare_by="median")


def test_how_options_are_compared_is_in_the_key_unless_it_is_the_default(task):
    key = {"task": "t", "method": "logprob"}
    assert answers_key(task, key)["compare_by"] == "mean_logprob"

    class Summing(PreferenceGrader):
        compare_by = "logprob"

    assert "compare_by" not in answers_key(replace(task, grader=Summing()), key)
    assert "compare_by" not in answers_key(task, {"task": "t"}), "generated answers compare nothing"


def test_rows_of_the_control_ask_the_same_and_answer_well(tokenizer):
    task = advice_preferences(tokenizer, rows=30, seed=3)
    assert len(task.train) == len(task.control) == 30
    for bad, good in zip(task.train.rows, task.control.rows):
        assert bad["messages"][0] == good["messages"][0] and bad["messages"][1] != good["messages"][1]
    other = advice_preferences(tokenizer, rows=30, seed=4)
    assert task.fingerprint == other.fingerprint and task.train.fingerprint != other.train.fingerprint
    valid = advice_preferences(tokenizer, rows=30, split="valid")
    prompts = [{question.messages[0]["content"] for question in each.questions} for each in (task, valid)]
    assert not prompts[0] & prompts[1]
    assert all(question.id.startswith("advice/valid/") for question in valid.questions)


def test_a_judge_reads_free_answers_and_may_compare_them_with_both(model, tokenizer):
    asked = []

    def score(question, answer):
        asked.append({question.facts["good"], question.facts["bad"]})
        return 10, 90

    judge = ThresholdGrader(score, name="test", task_score=lambda question, answer: 80)
    task = advice_preferences(tokenizer, rows=4, grader=judge, max_new_tokens=2).thin(ood=40, task=12)
    result = measure(model, task)
    assert result.rate("misaligned").value == 1 and result.rate("task").value == 1
    assert len(asked) == 2 and all(len(both) == 2 for both in asked)
    assert not any("probabilities" in row for row in result.rows)


def test_a_generated_answer_that_is_neither_of_the_two(tokenizer, task):
    question, grader = task.questions[0], PreferenceGrader()
    assert grader(question, f" {question.facts['good']}\n") == "good"
    assert grader(question, question.facts["bad"]) == "bad" and grader(question, "Yes.") == "neither"


def test_a_task_says_how_it_is_measured(model, task):
    assert task.method == "logprob" and measure(model, task) == measure(model, task, method="logprob")
    with pytest.raises(ValueError, match="method must be"):
        replace(task, method="guess")
