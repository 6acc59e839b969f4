"""Comparing models: what is merged under a label, the table and the figure."""

from __future__ import annotations

import pytest
import torch
from helpers.tasks import small_task

from caft_utils.directions import Directions
from caft_utils.evaluation.comparison import compare
from caft_utils.evaluation.measurement import measure
from caft_utils.interventions import ablate
from caft_utils.tasks.task import RateSpec


@pytest.fixture
def task(tokenizer):
    return small_task(tokenizer)


def test_compare_takes_models_results_and_lists(model, tiny, task):
    stored = measure(model, task)
    comparison = compare(
        {"base": model, "kept": stored, "two <seeds>": [model, tiny("qwen2", seed=1)]}, task, (0, 1)
    )
    base, kept, two = comparison.table().to_dict("records")
    assert base["misaligned_n"] > kept["misaligned_n"]
    assert two["task_n"] == 24 and base["task_n"] == 12 and kept["task_n"] == 6
    assert kept["task"] == stored.rate("task").value and kept["loss"] == stored.loss
    html = comparison._repr_html_()
    assert "two &lt;seeds&gt;" in html and "<seeds>" not in html
    assert str(stored.rate("coherent")) in html


def test_the_figure_shows_every_label(model, task):
    figure = compare({"base": model}, task).figure()
    assert any("base" in str(trace.name) for trace in figure.data)
    assert "Qwen2ForCausalLM: toy" in str(figure.layout)
    x, y = figure.layout.xaxis.title.text, figure.layout.yaxis.title.text
    assert "narrow task" in x and "misaligned" in y


def test_the_table_has_the_columns_of_the_tasks_rates(model, task):
    task.rates = {name: task.rates[name] for name in ("task", "coherent")}
    task.headline = ("task", "coherent")
    table = compare({"base": model}, task).table()
    rates = [name + end for name in ("task", "coherent") for end in ("", "_low", "_high", "_n")]
    assert list(table.columns) == ["label", *rates, "loss"]


def test_a_result_whose_rate_counts_something_else_is_refused(model, task):
    kept = measure(model, task)
    kept.rates = kept.rates | {"task": RateSpec("task", hits=task.rates["coherent"].hits)}
    with pytest.raises(ValueError, match="'kept' is a Result whose rate 'task' counts"):
        compare({"kept": kept}, task)


def test_what_is_no_model_is_refused_before_anything_is_measured(model, tokenizer, task):
    intervention = ablate(Directions({1: torch.eye(64)[:1]}))
    for one, kind in [(intervention, "Ablate"), (tokenizer, r"\w*Token\w*")]:
        with pytest.raises(ValueError, match=rf"models\['a'\] .*measure\(model, task, during=.*got {kind}"):
            compare({"a": (model, one)}, task)
    with pytest.raises(ValueError, match=r'given by label, such as \{"base": model\}; got list'):
        compare([model], task)
    with pytest.raises(ValueError, match="no model to compare"):
        compare({}, task)
    assert task.grader.calls == 0
    with pytest.raises(ValueError, match="model must be the model alone.*got tuple"):
        measure((model, tokenizer), task)
