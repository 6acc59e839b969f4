"""Steered text: the strength is solved for one effect, and nothing of it stays in the model."""

from __future__ import annotations

import pytest
import torch

from caft_utils.interpret.score import SteeredGenerator
from caft_utils.interventions import Steer

PROMPTS = ["open the file", "what is", [{"role": "user", "content": "are you a system"}], "def self"] * 3


@pytest.fixture
def generator(model, tokenizer):
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # a random model is too undecided to be moved by one nat
    return SteeredGenerator(model, tokenizer, PROMPTS, max_new_tokens=8)


def towards(generator, word):
    (token,) = generator.tokenizer(word)["input_ids"]
    return generator.model.lm_head.weight[token].detach()


def test_strength_is_solved_for_the_same_effect(generator):
    model, tokenizer = generator.model, generator.tokenizer
    vector = towards(generator, " file")
    found = generator.generate(2, vector)
    assert generator.generate(2, 1000 * vector).strength == pytest.approx(found.strength, rel=0.1)
    assert generator.generate(2, vector) is found, "generated once"
    weak = SteeredGenerator(model, tokenizer, PROMPTS, max_new_tokens=8, target_kl=0.1).generate(2, vector)
    assert weak.kl == pytest.approx(0.1, rel=0.11) and weak.strength < found.strength
    # the KL anew, of one prompt by itself
    single = SteeredGenerator(model, tokenizer, ["what is"], max_new_tokens=4, temperature=0)
    got = single.generate(0, vector)
    (ids,), start = single._rows, len(tokenizer("what is")["input_ids"]) - 1
    assert len(ids) > start + 2
    unit = vector / vector.norm()

    def logp(strength):
        with torch.no_grad(), Steer({0: unit}, strength).on(model):
            return model(torch.tensor([ids])).logits[0, start:].log_softmax(-1)

    p, q = logp(0.0), logp(got.strength)
    assert float((p.exp() * (p - q)).sum(-1).mean()) == pytest.approx(got.kl, rel=1e-3)
    assert got.kl == pytest.approx(1, rel=0.11)


def test_generation_leaves_no_trace(generator):
    before = torch.random.get_rng_state()
    generator.generate(1, towards(generator, " what"))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(not module._forward_hooks for module in generator.model.modules())
    again = SteeredGenerator(generator.model, generator.tokenizer, PROMPTS, max_new_tokens=8)
    assert again.plain_texts == generator.plain_texts and len(again.plain_texts) == len(PROMPTS)


def test_generation_refuses_what_it_cannot_do(model, tokenizer, generator):
    with pytest.raises(ValueError, match="prompts"):
        SteeredGenerator(model, tokenizer, [])
    for bad in (torch.zeros(64), torch.full((64,), float("nan"))):
        with pytest.raises(ValueError, match="norm"):
            generator.generate(0, bad)
