"""Measuring: rates from verdicts, the held-out loss, and stored results."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict

import pytest
import torch
from helpers.tasks import LengthGrader, small_task

from caft_utils.chats import Chats
from caft_utils.evaluation.generation import generate
from caft_utils.evaluation.measurement import Result, measure
from caft_utils.losses import mean_answer_loss
from caft_utils.residual import edit
from caft_utils.tasks.emergent import RATES
from caft_utils.tasks.task import RateSpec


@pytest.fixture
def task(tokenizer):
    return small_task(tokenizer)


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
    result = Result(rows, "m", rates=RATES)
    assert result.rate("misaligned").value == pytest.approx(1 / 3) and result.rate("misaligned").n == 3
    assert result.rate("coherent").value == pytest.approx(3 / 5) and result.rate("coherent").n == 5
    assert result.rate("task").value == pytest.approx(2 / 4)


def test_merging_keeps_runs_apart_and_averages_the_loss():
    results = [
        Result([row("ood", i, verdict, run) for i in range(40)], run, loss, RATES)
        for run, verdict, loss in [("a", "misaligned", 1.0), ("b", "aligned", 2.0)]
    ]
    merged = Result.merge(results)
    assert merged.loss == 1.5 and merged.rate("misaligned").value == 0.5 and merged.model_id == "a+b"
    one_run = Result([{**r, "run": "a"} for r in merged.rows], "a", rates=RATES)
    assert (
        merged.rate("misaligned").high - merged.rate("misaligned").low
        > one_run.rate("misaligned").high - one_run.rate("misaligned").low
    )
    assert Result.merge([results[0], Result([], "c", rates=RATES)]).loss is None
    with pytest.raises(ValueError, match="no result"):
        Result.merge([])


def test_answers_are_judged_and_kept(model, task):
    result = measure(model, task, seed=3)
    asked = task.questions
    expected = generate(model, task.valid.tokenizer, [q.messages for q in asked], max_new_tokens=6, seed=3)
    assert [r["answer"] for r in result.rows] == expected
    assert [r["verdict"] for r in result.rows] == [LengthGrader()(q, a) for q, a in zip(asked, expected)]
    assert [r["question"] for r in result.rows] == [q.id for q in asked]
    calls = task.grader.calls
    assert calls == 18 and measure(model, task, seed=3) == result and task.grader.calls == calls
    other = measure(model, task, seed=4)
    assert task.grader.calls == 2 * calls and [r["answer"] for r in other.rows] != expected


def test_what_is_measured_is_in_the_key(model, tiny, task):
    first = measure(model, task)
    measure(tiny("qwen2", seed=1), task)
    assert task.grader.calls == 36
    task.grader.fingerprint = "another grader"
    measure(model, task)
    assert task.grader.calls == 54
    several = measure(model, task, samples=3)
    assert task.grader.calls == 54 + 3 * 18 and len(several.rows) == 3 * len(first.rows)


def test_under_an_edit_of_somebody_else_nothing_is_stored_or_read(model, task, store_folder):
    with edit(model, {1: torch.zeros_like}):
        edited = measure(model, task, temperature=0)
        assert not list(store_folder.glob("measure/*"))
    plain = measure(model, task, temperature=0)
    assert plain.loss != edited.loss and list(store_folder.glob("measure/*"))
    with edit(model, {1: torch.zeros_like}):
        assert measure(model, task, temperature=0).loss == edited.loss


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_each_active_adapter_has_results_of_its_own(model, tiny, task):
    from peft import LoraConfig, get_peft_model

    def config():
        return LoraConfig(target_modules=["q_proj", "up_proj"], init_lora_weights=False, lora_alpha=64)

    wrapped, losses = get_peft_model(model, config(), adapter_name="a").eval(), {}
    wrapped.add_adapter("b", config())
    for active in ("a", "b"):
        wrapped.set_adapter(active)
        losses[active] = measure(wrapped, task).loss
    with wrapped.disable_adapter():
        losses["none"] = measure(wrapped, task).loss
    assert len(set(losses.values())) == 3 and losses["none"] == measure(tiny("qwen2"), task).loss
    calls = task.grader.calls
    wrapped.set_adapter("a")
    assert measure(wrapped, task).loss == losses["a"] and task.grader.calls == calls


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
    task.grader.__class__ = type(
        "Confused", (LengthGrader,), {"__call__": lambda self, question, answer: "task"}
    )
    with pytest.raises(ValueError, match="'task' for question ood/0.*aligned, misaligned"):
        measure(model, task)
    task.grader.__class__ = LengthGrader
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
    )  # the first token has no context
    with pytest.raises(ValueError, match="no rows"):
        mean_answer_loss(model, task.valid[:0])


def test_a_rate_that_the_task_does_not_declare_is_named(model, task):
    with pytest.raises(KeyError, match="no rate 'accuracy'.*misaligned, coherent, task"):
        measure(model, task).rate("accuracy")
    with pytest.raises(ValueError, match="different rates"):
        Result.merge([Result([], "a", rates=RATES), Result([], "b")])


def test_rates_may_be_declared_anew_without_measuring_again(model, task):
    before = measure(model, task)
    calls = task.grader.calls
    task.rates = {"incoherent": RateSpec("ood", ("incoherent",))}
    after = measure(model, task)
    assert task.grader.calls == calls and after.rows == before.rows
    assert after.rate("incoherent").value == pytest.approx(1 - before.rate("coherent").value)


def test_a_result_stored_without_rates_is_read(model, task, store_folder):
    """Results of earlier versions hold rows, model_id and loss only; the task says what to count."""
    result = measure(model, task)
    value = {"rows": result.rows, "model_id": result.model_id, "loss": result.loss}
    assert Result.from_json(value).rates == {}
    assert Result.from_json(json.loads(json.dumps(asdict(result)))) == result


def test_log_probability_needs_options_and_one_sample(model, task):
    with pytest.raises(ValueError, match="options"):
        measure(model, task, method="logprob")
    with pytest.raises(ValueError, match="samples must be 1"):
        measure(model, task, method="logprob", samples=2)
    with pytest.raises(ValueError, match="'generate' or 'logprob'"):
        measure(model, task, method="guess")
