"""Intervention: the score finds what a direction makes the model write, on either side."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.planted import planted

from caft_utils.interpret.score import InterventionScore, SteeredGenerator
from caft_utils.interpret.score.word_overlap import WordOverlap

PROMPTS = ["open the file", "what is", [{"role": "user", "content": "are you a system"}], "def self"] * 3


def test_a_direction_makes_the_model_write_a_word(model, tokenizer):
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # a random model is too undecided to be moved by one nat
    generator = SteeredGenerator(model, tokenizer, PROMPTS, max_new_tokens=8)
    (token,) = tokenizer(" file")["input_ids"]
    vector = model.lm_head.weight[token].detach()
    examples = replace(planted("pets"), layer=2)
    scorer = InterventionScore(WordOverlap(), generator, lambda layer, index: vector)
    right, wrong = scorer('"files"', examples), scorer('"question"', examples)
    assert right.value > 1 and right.low > 0 > wrong.low and wrong.value < 0.5, (right, wrong)
    assert right.n == len(PROMPTS)
    assert right.extra["kl"] == pytest.approx(1, rel=0.11) and right.extra["strength"] > 0

    negative = replace(examples, side="-")
    opposite = InterventionScore(WordOverlap(), generator, lambda layer, index: -vector)
    assert opposite('"files"', negative).value == right.value
    assert scorer('"files"', negative).value < 0.5
