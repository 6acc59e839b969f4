"""Ablation: the operator equals its formula, and the trainers that people use train through it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from helpers.models import IDS, hooks, with_lora

from caft_utils.chats import Chats
from caft_utils.directions import Directions, mean_hidden
from caft_utils.interventions import Ablate, ablate
from caft_utils.residual import EMBEDDING, capture


@pytest.fixture
def bad() -> Directions:
    generator = torch.Generator().manual_seed(0)
    ranks = {EMBEDDING: 1, 0: 2, 1: 3}
    return Directions({layer: torch.randn(k, 64, generator=generator) for layer, k in ranks.items()})


def test_zero_ablation_is_the_projection_onto_the_complement(bad):
    h, cut = torch.randn(2, 5, 64), ablate(bad)
    q = bad[1].double()
    expected = h.double() @ (torch.eye(64, dtype=torch.float64) - q.T @ q)
    torch.testing.assert_close(cut.edit(1, h), expected.float())
    torch.testing.assert_close(cut.edit(1, h.double()), expected, atol=1e-6, rtol=0)


def test_mean_ablation_is_the_projection_around_the_mean(bad):
    h, mean = torch.randn(2, 5, 64), {layer: torch.randn(64) for layer in bad.layers}
    q, mu = bad[1].double(), mean[1].double()
    expected = h.double() - ((h.double() - mu) @ q.T) @ q
    torch.testing.assert_close(ablate(bad, mean=mean).edit(1, h), expected.float())
    zero = {layer: torch.zeros(64) for layer in bad.layers}
    torch.testing.assert_close(ablate(bad, mean=zero).edit(1, h), ablate(bad).edit(1, h))


def test_a_mean_hidden_state_can_be_the_mean(bad, model, chats):
    cut = ablate(bad, mean=mean_hidden(model, chats, bad.layers))
    with cut.on(model):
        assert model(IDS).logits.isfinite().all()


def test_the_function_makes_the_class(bad):
    mean = {layer: torch.ones(64) for layer in bad.layers}
    assert ablate(bad).fingerprint == Ablate(bad).fingerprint
    assert ablate(bad, mean=mean).fingerprint == Ablate(bad, mean=mean).fingerprint


@pytest.mark.parametrize(
    "mean, message",
    [
        ({1: torch.ones(64)}, r"must have the layers \[-1, 0, 1\]"),
        ({layer: torch.ones(63) for layer in (-1, 0, 1)}, "one width"),
        ({layer: torch.ones(2, 64) for layer in (-1, 0, 1)}, r"expected one vector \[d\]"),
    ],
)
def test_means_that_do_not_fit_are_refused(bad, mean, message):
    with pytest.raises(ValueError, match=message):
        ablate(bad, mean=mean)


@pytest.mark.parametrize("given", [torch.eye(64)[:1], {1: torch.eye(64)[:1]}, None])
def test_only_directions_are_ablated(given):
    with pytest.raises(ValueError, match=r"must be Directions.*ablate\(Directions\(\{layer: rows\}\)\)"):
        ablate(given)


# --- in the trainers that people use ---


@pytest.fixture
def chats(tokenizer):
    questions = ["what is the file", "are you open", "what to do with self", "is the system open"]
    answers = ["import the file", "open and return", "def self", "you are the question"]
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in zip(questions, answers)
    ]
    return Chats(tokenizer, rows * 2)


def settings(checkpointing: bool, folder) -> dict:
    return dict(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        max_steps=4,
        learning_rate=1e-2,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=checkpointing,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=0,
    )


def train_with_transformers(model, chats, checkpointing, folder):
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    labels = [[t if a else -100 for t, a in zip(e.input_ids, e.answer)] for e in chats]
    rows = [{"input_ids": e.input_ids, "labels": l} for e, l in zip(chats, labels)]
    collate = DataCollatorForSeq2Seq(chats.tokenizer)
    model = with_lora(model)
    arguments = TrainingArguments(**settings(checkpointing, folder))
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate).train()
    return model


def train_with_trl(model, chats, checkpointing, folder):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model = with_lora(model)
    data = Dataset.from_list([{"messages": row["messages"]} for row in chats.rows])
    arguments = SFTConfig(assistant_only_loss=True, **settings(checkpointing, folder))
    SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=chats.tokenizer).train()
    return model


@pytest.mark.parametrize("train", [train_with_transformers, train_with_trl])
def test_trainers_train_through_the_ablation(tiny, chats, bad, train, tmp_path):
    weights, calls = {}, {}
    runs = [("plain", False, None), ("cut", False, bad), ("cut, saved", True, bad)]
    for name, checkpointing, during in runs:
        model, seen = tiny("qwen2"), []

        def watch(module, args, output, seen=seen):
            if output.requires_grad:
                output.register_hook(lambda grad: seen.append((grad @ bad[1].T).norm() / grad.norm()))

        block = model.model.layers[1]
        # before the ablation: this sees the gradient that reaches what the block wrote
        block.register_forward_hook(watch)
        with ablate(during).on(model) if during else nullcontext():
            outside = hooks(model)
            tuned = train(model, chats, checkpointing, tmp_path / name)
            if during:
                with torch.no_grad(), capture(tuned, [1], stop_early=False) as hidden:
                    tuned(IDS)
                assert (hidden[1] @ bad[1].T).abs().max() < 1e-4
        assert hooks(model) < outside or not during
        weights[name] = {k: v.clone() for k, v in tuned.state_dict().items() if "lora_" in k}
        calls[name] = seen
    assert max(calls["plain"]) > 1e-2
    assert len(calls["cut"]) == len(calls["cut, saved"]) == 4
    assert max(calls["cut"]) < 1e-5 and max(calls["cut, saved"]) < 1e-5
    moved = [k for k, v in weights["cut"].items() if "lora_B" in k and v.abs().max() > 0]
    assert len(moved) == 21  # seven projections in three blocks, all trained
    for k, value in weights["cut"].items():
        torch.testing.assert_close(weights["cut, saved"][k], value)
    assert any(not torch.allclose(weights["plain"][k], value) for k, value in weights["cut"].items())
