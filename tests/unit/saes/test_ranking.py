"""Rankings of latents: on planted latents each sign convention gives the answer known beforehand."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.saes import random_relu_sae, relu_sae

from caft_utils.chats import Chats
from caft_utils.interventions import Intervention
from caft_utils.residual import capture, stream_activations
from caft_utils.saes import SAEs
from caft_utils.saes.ranking import (
    LatentRanking,
    answer_difference,
    attribution,
    difference_latents,
    latent_difference,
)

TURNS = ["import self and open", "return the file", "do not open it", "what is the question to you"]


@pytest.fixture(scope="module")
def chats(tokenizer):
    def row(answer):
        return {
            "messages": [{"role": "user", "content": "what is"}, {"role": "assistant", "content": answer}]
        }

    return Chats(tokenizer, [row(answer) for answer in TURNS])


@pytest.fixture
def still(model):
    """A model whose blocks add nothing: the stream is the embedding at every layer."""
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return model


def constant_sae(rows, activation):
    """Latents that fire by `activation` on every token, whatever the hidden state; decoder `rows` [F, d]."""
    rows = torch.stack([row / row.norm() for row in rows])
    return relu_sae(torch.zeros(rows.shape[1], len(rows)), rows, b_enc=torch.as_tensor(activation))


def answer_nats_of(model, chats):
    """Loss on answers, summed over tokens, a row on average; row by row, without padding."""
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


def test_a_latent_that_helps_to_answer_is_at_the_negative_end(still, tokenizer):
    """Every answer is one word over and over: its row of the unembedding lowers the loss."""
    word = tokenizer(" open")["input_ids"][0]
    chats = Chats(tokenizer, [{"text": " open" * n} for n in (6, 9)])
    useful = still.lm_head.weight.detach()[word]
    unused = torch.randn(64)
    unused -= (unused @ useful) / (useful @ useful) * useful
    saes = SAEs({1: constant_sae([unused, useful, -useful, useful], [0.5, 0.5, 0.5, -1.0])})
    ranking = attribution(still, chats, saes)
    scores = ranking.scores[1]
    assert scores[1] < 0 < scores[2] and scores[3] == 0  # the last one never fires
    assert ranking.top(1) == [(1, 2, pytest.approx(scores[2].item()))]
    assert ranking.top(1, end="-") == [(1, 1, pytest.approx(scores[1].item()))]
    assert "raises answer_nats" in ranking.about["positive"] and ranking.about["method"] == "attribution"
    # And so it is: what a latent gives is what is missing when it is taken out.
    with torch.no_grad():
        whole = answer_nats_of(still, chats)
        with Remove({"part": {1: 0.5 * useful / useful.norm()}}).on(still):
            assert answer_nats_of(still, chats) > whole
        with Remove({"part": {1: -0.5 * useful / useful.norm()}}).on(still):
            assert answer_nats_of(still, chats) < whole


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


def test_only_answer_tokens_can_be_counted(still, chats):
    """Without attention an activation acts on the next token only."""
    saes = SAEs({1: constant_sae([still.lm_head.weight.detach()[5]], [1.0])})
    every, answers = (attribution(still, chats, saes, tokens=t).scores[1] for t in ("all", "answer"))
    seen = []

    def first_word(logits, batch):  # depends on what stands before the first answer token only
        start = batch.answer.int().argmax(1) - 1
        seen.append(start)
        return logits[torch.arange(len(logits)), start, 5]

    assert attribution(still, chats, saes, first_word, tokens="answer").scores[1].item() == 0
    assert attribution(still, chats, saes, first_word).scores[1].item() > 0
    assert every.item() != answers.item() and seen[0].min() > 0


def test_the_difference_of_two_answers_as_metric(still, chats):
    right, wrong = [20, 21, 22, 23], [30, 31, 32, 33]
    unembed = still.lm_head.weight.detach()
    saes = SAEs({0: constant_sae([unembed[20], unembed[30], -unembed[20]], [1.0, 1.0, 1.0])})
    metric = answer_difference(right, wrong)
    for batch in chats.batches(3):
        with torch.no_grad():
            logits = still(batch.input_ids, attention_mask=batch.attention_mask).logits
        for value, row, line in zip(metric(logits, batch), batch.index, logits):
            before = chats[row].answer.index(True) - 1
            assert value == line[before, right[row]] - line[before, wrong[row]]
    scores = attribution(still, chats[:1], saes, metric).scores[0]
    assert scores[0] > 0 > scores[1] and scores[2] == pytest.approx(-scores[0].item(), rel=1e-4)
    assert attribution(still, chats[:1], saes, metric).about["metric"] == "answer_difference"


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


@pytest.fixture
def planted(still):
    """A tuned model with coordinate 7 up and 9 down by 3, its base, SAEs whose latent i is coordinate i."""
    tuned = copy.deepcopy(still)
    with torch.no_grad():
        tuned.model.embed_tokens.weight[:, 7] += 3.0
        tuned.model.embed_tokens.weight[:, 9] -= 3.0
    basis = torch.eye(64)
    return tuned, still, SAEs({0: relu_sae(basis, basis), 1: relu_sae(basis * 2, basis * 2)})


def test_latent_difference_is_positive_for_what_the_tuned_model_does_more(planted, chats):
    tuned, base, saes = planted
    ranking = latent_difference(tuned, base, chats, saes, batch_size=2)
    assert [(l, i) for l, i, _ in ranking.top(2)] == [(1, 7), (0, 7)]
    hidden = torch.cat([part.hidden[0][part.position > 0] for part in stream_activations(base, chats, [0])])
    up = (hidden[:, 7] + 3).relu().mean() - hidden[:, 7].relu().mean()
    assert ranking.scores[0][7].item() == pytest.approx(up.item(), rel=1e-4)
    assert ranking.scores[1][7].item() == pytest.approx(4 * up.item(), rel=1e-4)
    assert ranking.per_layer(3) == {0: [7], 1: [7]}  # no other latent fires more
    assert ranking.per_layer(3, end="-") == {0: [9], 1: [9]}
    assert latent_difference(base, tuned, chats, saes).per_layer(3) == {0: [9], 1: [9]}
    assert latent_difference(base, base, chats, saes).top(5) == []
    assert ranking.about["tuned"] != ranking.about["base"] and "fires more" in ranking.about["positive"]


def test_difference_latents_read_the_change_itself(planted, chats):
    tuned, base, saes = planted
    ranking = difference_latents(tuned, base, chats, saes)
    assert ranking.top(5) == [(1, 7, pytest.approx(12, rel=1e-4)), (0, 7, pytest.approx(3, rel=1e-4))]
    assert ranking.top(5, end="-") == []  # a change against a latent cannot make it fire
    assert difference_latents(base, tuned, chats, saes).per_layer(3) == {0: [9], 1: [9]}


def test_the_centre_of_an_sae_is_no_part_of_the_change(planted, chats):
    """b_dec is where hidden states are, and a difference of two is around zero."""
    tuned, base, _ = planted
    basis = torch.eye(64)
    saes = SAEs({0: relu_sae(basis, basis, b_dec=10 * basis[7] - 10 * basis[3])})
    assert difference_latents(tuned, base, chats, saes).per_layer(5) == {0: [7]}
    assert difference_latents(tuned, base, chats, saes, centre=False).per_layer(5) == {0: [3]}


def test_tokens_and_first_tokens(planted, chats):
    tuned, base, saes = planted
    for tokens, keep in (("all", lambda e, t: True), ("answer", lambda e, t: e.answer[t])):
        kept = [e.input_ids[t] for e in chats for t in range(1, len(e.input_ids)) if keep(e, t)]
        h = base.model.embed_tokens.weight.detach()[kept]
        expected = (h[:, 7] + 3).relu().mean() - h[:, 7].relu().mean()
        found = latent_difference(tuned, base, chats, saes, tokens=tokens).scores[0][7]
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_tuned_model_may_be_a_peft_model(model, chats):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned, saes = get_peft_model(copy.deepcopy(model), config), SAEs({1: random_relu_sae()})
    assert latent_difference(tuned, model, chats, saes).scores[1].abs().max() > 0
    assert attribution(tuned, chats, saes).scores[1].abs().max() > 0


@pytest.fixture
def ranking() -> LatentRanking:
    return LatentRanking({1: torch.tensor([0.5, -2.0, 0.0, 1.0]), 4: torch.tensor([3.0, 0.25])})


def test_top_of_all_layers(ranking):
    assert ranking.top(3) == [(4, 0, 3.0), (1, 3, 1.0), (1, 0, 0.5)]
    assert ranking.top(3, end="-") == [(1, 1, -2.0)]
    assert ranking.top(3, end="both") == [(4, 0, 3.0), (1, 1, -2.0), (1, 3, 1.0)]
    assert [len(ranking.top(end=end)) for end in ("+", "-", "both")] == [4, 1, 5]


def test_order_of_both_ends(ranking):
    assert ranking.order() == [(4, 0), (1, 1), (1, 3), (1, 0), (4, 1)]
    assert ranking.order("-") == [(1, 1)]
    ends = ranking.top(10**6) + ranking.top(10**6, end="-")
    assert ranking.top(end="both") == sorted(ends, key=lambda entry: -abs(entry[2]))


def test_ties_keep_the_positive_end_and_the_lower_layer_and_latent_first():
    ranking = LatentRanking({0: torch.tensor([-1.0, 1.0, 1.0]), 2: torch.tensor([1.0, -1.0])})
    assert ranking.order() == [(0, 1), (0, 2), (2, 0), (0, 0), (2, 1)]


def test_per_layer_is_a_selection_in_order_of_the_score(ranking):
    selection = ranking.per_layer(2)
    assert selection == {1: [3, 0], 4: [0, 1]} and selection.order == [(4, 0), (1, 3), (1, 0), (4, 1)]
    assert ranking.per_layer(1, "-") == {1: [1]}  # no latent of layer 4 is at this end
    assert ranking.per_layer(2, "both") == {1: [1, 3], 4: [0, 1]}


@pytest.mark.parametrize("arguments", [(3, "up"), (0, "+"), (-1, "both")])
def test_wrong_ends_and_numbers_are_refused(ranking, arguments):
    for method in (ranking.top, ranking.per_layer):
        with pytest.raises(ValueError, match="expected n >= 1 and end"):
            method(*arguments)


def test_wrong_arguments_are_refused(model, chats, tokenizer):
    saes = SAEs({1: random_relu_sae()})
    with pytest.raises(ValueError, match=r"one number for each row, shape \(4,\), got \(\)"):
        attribution(model, chats, saes, lambda logits, batch: logits.sum())
    with pytest.raises(ValueError, match="SAEs read width 32, but Qwen2ForCausalLM has width 64"):
        attribution(model, chats, SAEs({1: random_relu_sae(d=32)}))
    with pytest.raises(ValueError, match="after the first of a row"):
        latent_difference(model, model, Chats(tokenizer, [{"text": "!"}]), saes)
