"""The loss on answers: equal to transformers', every token with the same weight, padding without any."""

from __future__ import annotations

import pytest
import torch

from caft_utils import losses
from caft_utils.chats import Batch, Chats
from caft_utils.losses import answer_logits, answer_nats, mean_answer_loss, nats_of_rows

ANSWERS = ["import self and open", "return", "what is the question to you"]


@pytest.fixture
def chats(tokenizer):
    def row(answer):
        return [{"role": "user", "content": "what is"}, {"role": "assistant", "content": answer}]

    return Chats(tokenizer, [{"messages": row(answer)} for answer in ANSWERS] + [{"text": "open the file"}])


def by_transformers(model, example) -> tuple[float, int]:
    """(summed loss, number of answer tokens that have a token before them) of one row without padding."""
    labels = [t if a else -100 for t, a in zip(example.input_ids, example.answer)]
    count = sum(label != -100 for label in labels[1:])
    with torch.no_grad():
        loss = model(torch.tensor([example.input_ids]), labels=torch.tensor([labels])).loss
    return loss.item() * count, count


def test_sums_by_row_equal_the_loss_of_transformers(model, chats):
    expected = [by_transformers(model, example)[0] for example in chats]
    for batch in chats.batches(3):
        with torch.no_grad():
            nats = answer_nats(model(batch.input_ids, attention_mask=batch.attention_mask).logits, batch)
        assert nats.tolist() == pytest.approx([expected[i] for i in batch.index], rel=1e-4)


def test_a_row_without_an_answer_token_costs_nothing(model, tokenizer):
    chats = Chats(tokenizer, [{"text": "!"}, {"text": "open the file"}])
    batch = next(chats.batches(2))
    nats = answer_nats(torch.randn(*batch.input_ids.shape, len(tokenizer)), batch)
    assert nats[batch.index.index(0)] == 0 < nats[batch.index.index(1)]


def test_the_sum_is_differentiable_and_in_float32(model, chats):
    batch = next(chats.batches(4))
    logits = torch.randn(*batch.input_ids.shape, 384, dtype=torch.bfloat16, requires_grad=True)
    nats = answer_nats(logits, batch)
    assert nats.dtype == torch.float32
    nats.sum().backward()
    counted = logits.grad.abs().sum(-1) > 0  # only predictions of answer tokens take part
    assert torch.equal(counted[:, :-1], batch.answer[:, 1:]) and not counted[:, -1].any()


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_mean_weighs_tokens_not_rows(model, chats, batch_size):
    sums, counts = zip(*(by_transformers(model, example) for example in chats))
    loss = mean_answer_loss(model, chats, batch_size=batch_size)
    assert loss == pytest.approx(sum(sums) / sum(counts), rel=1e-4)


def test_the_mean_is_taken_without_dropout_and_gradients(tiny, chats):
    model = tiny("qwen2", attention_dropout=0.5)
    expected = mean_answer_loss(model, chats)
    model.train()
    assert mean_answer_loss(model, chats) == expected and model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_chats_without_a_token_to_predict_are_refused(model, chats, tokenizer):
    with pytest.raises(ValueError, match="no rows"):
        mean_answer_loss(model, chats[:0])
    with pytest.raises(ValueError, match="no answer token"):
        mean_answer_loss(model, Chats(tokenizer, [{"text": "!"}]))


@pytest.fixture
def large(monkeypatch):
    """Let the vocabulary of the tiny models count as large."""
    monkeypatch.setattr(losses, "LARGE_VOCABULARY", 384)


@pytest.mark.parametrize("architecture", ["qwen2", "mistral", "gemma2"])
def test_a_large_vocabulary_is_computed_at_answers_only(tiny, chats, large, monkeypatch, architecture):
    """Also under the soft cap of Gemma 2, which the logits of this model reach."""
    model, shapes = tiny(architecture), []
    head = model.get_output_embeddings()
    with torch.no_grad():
        head.weight.mul_(30)
    batch = next(chats.batches(4))
    handle = head.register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape)))
    with torch.no_grad():
        few = answer_nats(answer_logits(model, batch), batch)
        mean = mean_answer_loss(model, chats)
        monkeypatch.setattr(losses, "LARGE_VOCABULARY", 385)
        whole = answer_nats(answer_logits(model, batch), batch)
    handle.remove()
    count = int(batch.answer[:, 1:].sum())
    assert shapes == [(1, count, 384)] * 2 + [(*batch.input_ids.shape, 384)]
    assert torch.allclose(few, whole, rtol=1e-5)
    assert mean == pytest.approx(whole.sum().item() / count, rel=1e-5)


@pytest.mark.parametrize("architecture", ["qwen2", "mistral", "gemma2"])
def test_rows_that_differ_in_the_last_token_share_a_pass(tiny, tokenizer, monkeypatch, architecture):
    prompts = ["what is the question", "import the file", "what"]
    rows = [
        {"messages": [{"role": "text", "content": prompt}, {"role": "assistant", "content": option}]}
        for prompt in prompts
        for option in (" self", " open", " return file")
    ]
    chats, model = Chats(tokenizer, rows, end=False), tiny(architecture)
    seen = []
    model.get_input_embeddings().register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    apart = nats_of_rows(model, chats, batch_size=4)
    assert seen == [4, 4, 1]
    monkeypatch.setattr(losses, "LARGE_VOCABULARY", 384)
    shared = nats_of_rows(model, chats, batch_size=4)
    assert seen[3:] == [4, 2]  # " self" with " open", and " return file" by itself, for three prompts
    assert shared == pytest.approx(apart, rel=1e-5) and len(set(apart)) == 9
    assert apart == pytest.approx([by_transformers(model, one)[0] for one in chats], rel=1e-4)


def test_the_model_returns_all_logits_again(model, chats, large):
    batch = next(chats.batches(4))
    with pytest.raises(IndexError):  # a mask that does not fit: the hook goes away also then
        answer_logits(model, Batch(batch.input_ids, batch.attention_mask, batch.answer[:, :-1], batch.index))
    answer_logits(model, batch)
    assert model(batch.input_ids).logits.shape[:2] == batch.input_ids.shape


def test_a_batch_without_answers_has_all_logits(model, tokenizer, large):
    batch = next(Chats(tokenizer, [{"text": "!"}]).batches(1))
    assert answer_nats(answer_logits(model, batch), batch).tolist() == [0]


def test_a_compiled_model_computes_all_logits(model, chats, large):
    assert losses.selects_logits(model)
    assert not losses.selects_logits(torch.compile(model, backend="eager"))
