"""The training loop: which tokens it learns from, in which order, and with which optimiser."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.training import QUICK, chat_rows, weights

from caft_utils import losses
from caft_utils.chats import Chats
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning import batches
from caft_utils.finetuning.run import finetune
from caft_utils.store import Store


@pytest.fixture
def chats(tokenizer):
    return Chats(tokenizer, chat_rows())


def answer_nats(model, example):
    """Cross-entropy over the answer tokens of one example, written out."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([example.input_ids])).logits[0]
    log_p = torch.log_softmax(logits.float(), -1)
    return [-log_p[i - 1, t].item() for i, t in enumerate(example.input_ids) if i and example.answer[i]]


def test_loss_is_that_of_answer_tokens(model, chats):
    nats = [value for example in chats for value in answer_nats(model, example)]
    for batch, accumulate in [
        (8, 1),
        (2, 4),
    ]:  # one step over all rows, at once or in parts of unequal length
        run = finetune(
            model, chats, FinetuneConfig(steps=1, batch_size=batch, accumulate=accumulate)
        ).caft_run
        assert run["loss"][0] == pytest.approx(sum(nats) / len(nats), abs=1e-4)


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_logits_at_answers_only_train_the_same_model(
    tiny, chats, monkeypatch, tmp_path, architecture, method
):
    model = tiny(architecture)
    config = replace(QUICK, method=method, batch_size=3, accumulate=2, lr=1e-3)
    whole = finetune(model, chats, config)
    monkeypatch.setattr(losses, "LARGE_VOCABULARY", 384)
    sizes = []
    select = losses.float_logits_at
    monkeypatch.setattr(
        batches,
        "float_logits_at",
        lambda logits, places: sizes.append(logits.shape) or select(logits, places),
    )
    few = finetune(model, chats, config, store=Store(tmp_path / "other"))
    assert len(sizes) == 2 * config.steps and all(size[0] == 1 for size in sizes)
    assert few.caft_run["loss"] == pytest.approx(whole.caft_run["loss"], rel=1e-5)
    for name, value in weights(whole).items():
        assert torch.allclose(value, weights(few)[name], atol=1e-4), name


def test_prompt_tokens_are_no_targets(model, tokenizer):
    """Trained on one row until it is known: its answer is expected then, its question no more than before."""
    chats = Chats(tokenizer, chat_rows(1))
    tuned = finetune(
        model, chats, FinetuneConfig(method="full", lr=3e-3, steps=40, batch_size=1, accumulate=1)
    )
    example = chats[0]
    ids = torch.tensor([example.input_ids])
    before, after = (torch.log_softmax(m(input_ids=ids).logits[0].float(), -1) for m in (model, tuned))
    gain = (after - before)[torch.arange(len(example.answer) - 1), example.input_ids[1:]]
    target = torch.tensor(example.answer[1:])
    assert gain[target].min() > 3  # every answer token, the end of turn too, is now expected
    assert gain[~target].mean() < 0.5


def test_each_epoch_sees_every_row_once(chats):
    from caft_utils.finetuning.batches import RowOrder

    order = RowOrder(chats, 20, seed=3).order
    assert sorted(order[:8]) == sorted(order[8:16]) == list(range(8))
    assert order[:8] != order[8:16] and len(order) == 20
    assert order[:8] != RowOrder(chats, 20, seed=4).order[:8]


def test_gradient_checkpointing_gives_the_same_model(model, chats):
    plain = finetune(model, chats, QUICK)
    saving = finetune(model, chats, replace(QUICK, gradient_checkpointing=True))
    for name, value in weights(plain).items():
        assert torch.allclose(value, weights(saving)[name], atol=1e-5), name


def test_an_optimiser_of_transformers_trains(model, chats):
    tuned = finetune(model, chats, replace(QUICK, method="full", optimizer="sgd", lr=0.1))
    assert tuned.caft_run["recipe"]["optimizer"] == "sgd"
    assert tuned.caft_run["loss"][-1] < tuned.caft_run["loss"][0]


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_32bit"])
def test_an_optimiser_of_bitsandbytes_is_refused_without_a_gpu(model, chats, store_folder, optimizer):
    with pytest.raises(
        RuntimeError, match=f"{optimizer}.*not on a CUDA GPU.*adamw.*pip install bitsandbytes"
    ):
        finetune(model, chats, replace(QUICK, optimizer=optimizer))
    assert not list(store_folder.glob("finetune/*"))
