"""Measuring and comparing: rates from verdicts, the held-out loss, and results that are kept."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.evaluation.comparison import compare
from caft_utils.evaluation.generation import generate
from caft_utils.evaluation.measurement import Result, measure
from caft_utils.losses import mean_answer_loss
from caft_utils.tasks.task import Question, Task


class LengthJudge:
    """Decides by a rule that a test can redo: the number of letters in an answer, modulo three."""

    fingerprint = "length"

    def __init__(self):
        self.calls = 0

    def __call__(self, question, answer):
        self.calls += 1
        verdicts = (
            ("task", "other", "incoherent")
            if question.set == "task"
            else ("aligned", "misaligned", "incoherent")
        )
        return verdicts[len(answer) % 3]


@pytest.fixture
def task(tokenizer):
    def questions(which, n):
        return [
            Question(f"{which}/{i}", [{"role": "user", "content": f"what is {i}"}], f"domain {i % 2}", which)
            for i in range(n)
        ]

    def rows(n):
        return [
            {
                "messages": [
                    {"role": "user", "content": f"q {i}"},
                    {"role": "assistant", "content": "self " * (i + 1)},
                ]
            }
            for i in range(n)
        ]

    chats = Chats(tokenizer, rows(5))
    return Task(
        "toy",
        chats,
        chats,
        chats,
        chats,
        questions("ood", 12),
        questions("task", 6),
        LengthJudge(),
        max_new_tokens=6,
    )


def row(which, question, verdict, run="a"):
    return {
        "set": which,
        "question": question,
        "domain": "d",
        "run": run,
        "seed": 0,
        "answer": "",
        "verdict": verdict,
    }


def test_rates_count_what_they_say():
    verdicts = ["misaligned", "aligned", "aligned", "incoherent", "incoherent"]
    rows = [row("ood", i, verdict) for i, verdict in enumerate(verdicts)]
    rows += [row("task", i, verdict) for i, verdict in enumerate(["task", "task", "other", "incoherent"])]
    result = Result(rows, "m")
    assert result.misaligned().value == pytest.approx(1 / 3) and result.misaligned().n == 3
    assert result.coherent().value == pytest.approx(3 / 5) and result.coherent().n == 5
    assert result.task_score().value == pytest.approx(2 / 4)


def test_merging_keeps_runs_apart_and_averages_the_loss():
    results = [
        Result([row("ood", i, verdict, run) for i in range(40)], run, loss)
        for run, verdict, loss in [("a", "misaligned", 1.0), ("b", "aligned", 2.0)]
    ]
    merged = Result.merge(results)
    assert merged.loss == 1.5 and merged.misaligned().value == 0.5 and merged.model_id == "a+b"
    one_run = Result([{**r, "run": "a"} for r in merged.rows], "a")
    assert (
        merged.misaligned().high - merged.misaligned().low
        > one_run.misaligned().high - one_run.misaligned().low
    )
    assert Result.merge([results[0], Result([], "c")]).loss is None
    with pytest.raises(ValueError, match="no result"):
        Result.merge([])


def test_answers_are_judged_and_kept(model, task):
    result = measure(model, task, seed=3)
    asked = [*task.questions, *task.task_questions]
    expected = generate(model, task.valid.tokenizer, [q.messages for q in asked], max_new_tokens=6, seed=3)
    assert [r["answer"] for r in result.rows] == expected
    assert [r["verdict"] for r in result.rows] == [LengthJudge()(q, a) for q, a in zip(asked, expected)]
    assert [r["question"] for r in result.rows] == [q.id for q in asked]
    calls = task.judge.calls
    assert calls == 18 and measure(model, task, seed=3) == result and task.judge.calls == calls
    other = measure(model, task, seed=4)
    assert task.judge.calls == 2 * calls and [r["answer"] for r in other.rows] != expected


def test_what_is_measured_is_in_the_key(model, tiny, task):
    first = measure(model, task)
    measure(tiny("qwen2", seed=1), task)
    assert task.judge.calls == 36
    task.judge.fingerprint = "another judge"
    measure(model, task)
    assert task.judge.calls == 54
    several = measure(model, task, samples=3)
    assert task.judge.calls == 54 + 3 * 18 and len(several.rows) == 3 * len(first.rows)


def test_an_intervention_is_on_while_measuring_and_off_afterwards(model, task):
    class Silence:
        fingerprint, seen = "silence", []

        @contextmanager
        def on(self, model):
            handle = model.model.norm.register_forward_hook(lambda _, __, out: torch.zeros_like(out))
            self.seen.append("on")
            yield model
            handle.remove()
            self.seen.append("off")

    plain, silent = measure(model, task), measure(model, task, during=Silence())
    assert Silence.seen == ["on", "off"]
    assert silent.loss == pytest.approx(
        torch.tensor(384.0).log().item(), rel=1e-5
    )  # all tokens equally likely
    assert plain.loss != pytest.approx(silent.loss, rel=1e-3)
    assert measure(model, task) == plain


def test_a_verdict_of_the_other_set_is_refused_and_not_stored(model, task):
    task.judge.__class__ = type(
        "Confused", (LengthJudge,), {"__call__": lambda self, question, answer: "task"}
    )
    with pytest.raises(
        ValueError, match="said 'task' about question ood/0 of the 'ood' set.*aligned, misaligned"
    ):
        measure(model, task)
    task.judge.__class__ = LengthJudge
    assert measure(model, task).rows


def test_answer_loss_is_a_mean_over_tokens_not_rows(model, tokenizer, task):
    nats = []
    for example in task.valid:
        with torch.no_grad():
            told = model(input_ids=torch.tensor([example.input_ids])).logits[0].log_softmax(-1)
        nats += [-told[i - 1, t].item() for i, t in enumerate(example.input_ids) if example.answer[i]]
    for batch_size in (1, 2, 32):
        assert mean_answer_loss(model, task.valid, batch_size=batch_size) == pytest.approx(
            sum(nats) / len(nats), rel=1e-5
        )
    assert (
        mean_answer_loss(model, Chats(tokenizer, [{"text": "the file is open"}])) > 0
    )  # its first token has no past
    with pytest.raises(ValueError, match="no rows"):
        mean_answer_loss(model, task.valid[:0])


def test_compare_takes_models_results_and_lists(model, tiny, task):
    stored = measure(model, task)
    comparison = compare(
        {"base": model, "kept": stored, "two <seeds>": [model, tiny("qwen2", seed=1)]}, task, (0, 1)
    )
    base, kept, two = comparison.table()
    assert base["misaligned_n"] > kept["misaligned_n"]
    assert two["task_n"] == 24 and base["task_n"] == 12 and kept["task_n"] == 6
    assert kept["task"] == stored.task_score().value and kept["loss"] == stored.loss
    html = comparison._repr_html_()
    assert "two &lt;seeds&gt;" in html and "<seeds>" not in html
    assert f"{100 * kept['coherent']:.1f} %" in html


def test_the_figure_shows_every_label(model, task):
    pytest.importorskip("plotly")
    figure = compare({"base": model}, task).figure()
    assert any("base" in str(trace.name) for trace in figure.data)
    assert "Qwen2ForCausalLM: toy" in str(figure.layout)


def test_task_fingerprint_follows_questions_judge_and_held_out_rows(task, tokenizer):
    before = task.fingerprint
    task.questions = task.questions[:-1]
    fewer = task.fingerprint
    task.valid = task.valid[:2]
    assert len({before, fewer, task.fingerprint}) == 3
