"""A model made by hand that predicts the words it has read, and topics of words that it knows."""

from __future__ import annotations

import torch

from helpers.tiny import make_tiny

COPIED = {"code": ["import", "def", "return", "self"], "talk": ["question", "what", "user", "assistant"]}
OTHERS = "you are the is do to with and open file".split()


def make_copier(tokenizer):
    """Return a model that predicts the words of `COPIED` and `OTHERS` that it has read, all alike."""
    model = make_tiny("qwen2", num_key_value_heads=4)
    words = [" " + word for word in sum(COPIED.values(), OTHERS)]
    with torch.no_grad():
        for parameter in model.parameters():  # all zero but the weights of the norms
            parameter.mul_(parameter.ndim == 1 and bool((parameter == 1).all()))
        attention = model.model.layers[0].self_attn
        attention.v_proj.weight.copy_(torch.eye(64))
        attention.o_proj.weight.copy_(20 * torch.eye(64))
        for place, word in enumerate(words):
            (token,) = tokenizer(word)["input_ids"]
            model.model.embed_tokens.weight[token, place] = 8
            model.lm_head.weight[token, place] = 1
    return model


def copied_explanation(topic: str) -> str:
    """Return an explanation with the words of a topic; each is one token, with the space before it."""
    return f'text with " {" ".join(COPIED[topic])}"'


def copied_direction(model, tokenizer, topic: str) -> torch.Tensor:
    """Return the direction that makes the copier write the words of a topic."""
    tokens = [tokenizer(" " + word)["input_ids"][0] for word in COPIED[topic]]
    return model.lm_head.weight[tokens].sum(0).detach()
