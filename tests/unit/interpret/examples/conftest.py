"""Random texts, and latents that fire at known tokens."""

from __future__ import annotations

import pytest
import torch
from helpers.fake_features import FakeFeatures

from caft_utils.chats import Chats
from caft_utils.residual import capture

WORDS = "open file return self system user question what with import def are you do to and is the".split()


@pytest.fixture
def chats(tokenizer):
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(150):
        length = int(torch.randint(5, 40, (1,), generator=generator))
        picks = torch.randint(18, (length,), generator=generator)
        rows.append({"text": " ".join(WORDS[int(i)] for i in picks)})
    return Chats(tokenizer, rows)


@pytest.fixture
def word(tokenizer):
    """Token id of each word."""
    return {w: tokenizer(f"the {w}")["input_ids"][-1] for w in WORDS}


@pytest.fixture
def latents(model, word):
    """Five latents at layer 0, numbers 10, 20, 30, 1 and 2.

    The first two fire at one token each ("file", "question"), by how similar the hidden state is to its
    embedding. The third fires at the first's token and faintly at the second's. The others fire never and
    always.
    """
    with torch.no_grad():  # hidden states at layer 0 then stay close to the token's embedding
        model.model.embed_tokens.weight *= 20
    rows = model.model.embed_tokens.weight[[word["file"], word["question"]]].detach()

    def values(hidden):
        unit = torch.nn.functional.normalize
        cosine = unit(hidden) @ unit(rows).T
        cosine = torch.where(cosine > 0.5, cosine, 0.0)
        never_and_always = torch.tensor([[0.0, 1.0]]).expand(len(hidden), 2)
        return torch.cat([cosine, cosine[:, :1] + 0.25 * cosine[:, 1:], never_and_always], 1)

    return FakeFeatures(values, indices=[10, 20, 30, 1, 2])


@pytest.fixture
def values_of():
    """Values of features at a layer, [tokens, k] of every row, each read by itself."""

    def read(model, chats, features, layer):
        found = []
        for example in chats:
            with torch.no_grad(), capture(model, [layer]) as hidden:
                model(torch.tensor([example.input_ids]))
                found.append(features.values(layer, hidden[layer][0]))
        return found

    return read
