"""Attribution: on planted latents each sign convention gives the answer known beforehand."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.models import with_lora
from helpers.saes import random_relu_sae, relu_sae

from caft_utils.chats import Chats
from caft_utils.interventions import Intervention
from caft_utils.residual import capture
from caft_utils.saes import SAEs, answer_difference, attribution


def constant_sae(rows, activation):
    """Latents that fire by `activation` on every token, whatever the hidden state; decoder `rows` [F, d]."""
    rows = torch.stack([row / row.norm() for row in rows])
    return relu_sae(torch.zeros(rows.shape[1], len(rows)), rows, b_enc=torch.as_tensor(activation))


def answer_nats_of(model, chats):
    """Loss on answers, summed over tokens and averaged over rows; computed row by row, without padding."""
    total = 0.0
    for example in chats:
        ids = torch.tensor([example.input_ids])
        logp = model(ids).logits[0].log_softmax(-1)
        total -= sum(logp[t - 1, ids[0, t]] for t in range(1, ids.shape[1]) if example.answer[t])
    return total / len(chats)


class Remove(Intervention):
    """Take a vector off the stream at all tokens but the first."""

    def edit(self, layer, hidden):
        hidden = hidden.clone()
        hidden[:, 1:] -= self.vector("part", layer, hidden)
        return hidden


def test_a_latent_that_helps_to_answer_is_at_the_negative_end(embedding_only, tokenizer):
    """Every answer is one word over and over: its row of the unembedding lowers the loss."""
    word = tokenizer(" open")["input_ids"][0]
    chats = Chats(tokenizer, [{"text": " open" * n} for n in (6, 9)])
    useful = embedding_only.lm_head.weight.detach()[word]
    unused = torch.randn(64)
    unused -= (unused @ useful) / (useful @ useful) * useful
    saes = SAEs({1: constant_sae([unused, useful, -useful, useful], [0.5, 0.5, 0.5, -1.0])})
    ranking = attribution(embedding_only, chats, saes)
    scores = ranking.scores[1]
    assert scores[1] < 0 < scores[2] and scores[3] == 0  # the last one never fires
    assert ranking.top(1) == [(1, 2, pytest.approx(scores[2].item()))]
    assert ranking.top(1, end="-") == [(1, 1, pytest.approx(scores[1].item()))]
    assert "raises answer_nats" in ranking.about["positive"] and ranking.about["method"] == "attribution"
    # And so it is: what a latent gives is what is missing when it is taken out.
    with torch.no_grad():
        whole = answer_nats_of(embedding_only, chats)
        with Remove({"part": {1: 0.5 * useful / useful.norm()}}).on(embedding_only):
            assert answer_nats_of(embedding_only, chats) > whole
        with Remove({"part": {1: -0.5 * useful / useful.norm()}}).on(embedding_only):
            assert answer_nats_of(embedding_only, chats) < whole


def test_attribution_is_the_first_order_effect_of_removing_a_latent(tiny, chats):
    model, rows, small = tiny("gemma2").double(), torch.randn(6, 64), 1e-3
    saes = SAEs({0: constant_sae(rows, [small] * 6), 2: constant_sae(-rows, [small] * 6)})
    ranking = attribution(model, chats, saes)
    with torch.no_grad():
        whole = answer_nats_of(model, chats)
        for layer in (0, 2):
            for i in range(6):
                with Remove({"part": {layer: small * saes.decoder(layer)[i]}}).on(model):
                    fall = whole - answer_nats_of(model, chats)
                assert ranking.scores[layer][i].item() == pytest.approx(fall.item(), rel=0.02, abs=2e-7)


def test_all_layers_in_one_backward_pass_and_any_batch_size(model, chats):
    saes = SAEs({layer: random_relu_sae(seed=layer) for layer in (-1, 1, 2)})
    expected = {layer: torch.zeros(32) for layer in saes}
    for example in chats:  # a row and a layer at a time
        for layer in saes:
            with capture(model, [layer], stop_early=False) as hidden:
                logp = model(torch.tensor([example.input_ids])).logits[0].log_softmax(-1)
                ids = example.input_ids
                loss = -sum(logp[t - 1, ids[t]] for t in range(1, len(ids)) if example.answer[t])
                (gradient,) = torch.autograd.grad(loss, hidden[layer])
            f = saes.encode(layer, hidden[layer].detach()[0, 1:])
            expected[layer] += (f * (gradient[0, 1:] @ saes.decoder(layer).T)).sum(0) / len(chats)
    for batch_size in (1, 3):
        found = attribution(model, chats, saes, batch_size=batch_size)
        for layer in saes:
            torch.testing.assert_close(found.scores[layer], expected[layer], rtol=1e-3, atol=1e-5)


def test_attribution_leaves_the_model_as_it_was(model, chats):
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # works without trainable weights, too
    scores = attribution(model, chats, SAEs({1: random_relu_sae()})).scores[1]
    assert scores.abs().max() > 0
    assert model.training and all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_only_answer_tokens_can_be_counted(embedding_only, chats):
    """Without attention an activation acts on the next token only."""
    saes = SAEs({1: constant_sae([embedding_only.lm_head.weight.detach()[5]], [1.0])})
    every, answers = (attribution(embedding_only, chats, saes, tokens=t).scores[1] for t in ("all", "answer"))
    seen = []

    def first_word(logits, batch):  # depends on what stands before the first answer token only
        start = batch.answer.int().argmax(1) - 1
        seen.append(start)
        return logits[torch.arange(len(logits)), start, 5]

    assert attribution(embedding_only, chats, saes, first_word, tokens="answer").scores[1].item() == 0
    assert attribution(embedding_only, chats, saes, first_word).scores[1].item() > 0
    assert every.item() != answers.item() and seen[0].min() > 0


def test_the_difference_of_two_answers_as_metric(embedding_only, chats):
    right, wrong = [20, 21, 22, 23], [30, 31, 32, 33]
    unembed = embedding_only.lm_head.weight.detach()
    saes = SAEs({0: constant_sae([unembed[20], unembed[30], -unembed[20]], [1.0, 1.0, 1.0])})
    metric = answer_difference(right, wrong)
    for batch in chats.batches(3):
        with torch.no_grad():
            logits = embedding_only(batch.input_ids, attention_mask=batch.attention_mask).logits
        for value, row, line in zip(metric(logits, batch), batch.index, logits):
            before = chats[row].answer.index(True) - 1
            assert value == line[before, right[row]] - line[before, wrong[row]]
    scores = attribution(embedding_only, chats[:1], saes, metric).scores[0]
    assert scores[0] > 0 > scores[1] and scores[2] == pytest.approx(-scores[0].item(), rel=1e-4)
    assert attribution(embedding_only, chats[:1], saes, metric).about["metric"] == "answer_difference"


def test_the_last_answer_of_a_conversation_is_meant(model, tokenizer):
    turns = [{"role": "user", "content": "is"}, {"role": "assistant", "content": "you are"}]
    chats = Chats(tokenizer, [{"messages": [*turns, *turns]}, {"messages": turns}])
    batch = next(chats.batches(2))
    logits = torch.zeros(*batch.input_ids.shape, 8)
    starts = []
    for i, row in enumerate(batch.index):
        answer = chats[row].answer
        starts.append(max(t for t in range(1, len(answer)) if answer[t] and not answer[t - 1]))
        logits[i, starts[-1] - 1, 3] = 2.0
    assert answer_difference([3, 3], [4, 4])(logits, batch).tolist() == [2.0, 2.0] and len(set(starts)) == 2
    with pytest.raises(ValueError, match="one token id for each row in both, got 1 and 2"):
        answer_difference([3], [4, 4])
    with pytest.raises(ValueError, match=r"rows \[0\] have no answer that begins after"):
        whole = Chats(tokenizer, [{"text": "open"}])
        answer_difference([3], [4])(torch.zeros(1, 9, 8), next(whole.batches(1)))


def test_a_peft_model_is_attributed_with_its_adapter(model, chats):
    tuned, saes = with_lora(copy.deepcopy(model)), SAEs({1: random_relu_sae()})
    without = attribution(tuned, chats, saes).scores[1]
    torch.testing.assert_close(without, attribution(model, chats, saes).scores[1])  # untrained: no effect
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    assert not torch.allclose(attribution(tuned, chats, saes).scores[1], without)


def test_wrong_arguments_are_refused(model, chats):
    saes = SAEs({1: random_relu_sae()})
    with pytest.raises(ValueError, match=r"one number for each row, shape \(4,\), got \(\)"):
        attribution(model, chats, saes, lambda logits, batch: logits.sum())
    with pytest.raises(ValueError, match="SAEs read width 32, but Qwen2ForCausalLM has width 64"):
        attribution(model, chats, SAEs({1: random_relu_sae(d=32)}))
