"""What the tests of rankings share."""

from __future__ import annotations

import pytest
import torch

from caft_utils.chats import Chats

ANSWERS = ["import self and open", "return the file", "do not open it", "what is the question to you"]


@pytest.fixture(scope="module")
def chats(tokenizer):
    def row(answer):
        return {
            "messages": [{"role": "user", "content": "what is"}, {"role": "assistant", "content": answer}]
        }

    return Chats(tokenizer, [row(answer) for answer in ANSWERS])


@pytest.fixture
def embedding_only(model):
    """A model whose blocks add nothing: the stream is the embedding at every layer."""
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return model
