"""The pipeline selects the latent that is about the concept, and records why it left the other."""

from __future__ import annotations

import random

import torch

from caft_utils.chats import Chats
from caft_utils.interpret.select.concepts import Concept
from caft_utils.interpret.select.pipeline import read_and_select
from caft_utils.residual import EMBEDDING

WORDS = "open file return self system user with import def are you do to and is the what question".split()


class Latents:
    """Latent 7 fires on the token of "question", latent 9 on that of "file"."""

    kind, two_sided, layers, fingerprint = "latent", False, [EMBEDDING], None

    def __init__(self, model, tokenizer):
        tokens = [tokenizer(f"the {word}")["input_ids"][-1] for word in ("question", "file")]
        self.rows = torch.nn.functional.normalize(model.model.embed_tokens.weight[tokens].detach())

    def indices(self, layer):
        return [7, 9]

    def values(self, layer, hidden):
        near = torch.nn.functional.normalize(hidden) @ self.rows.T
        return torch.where(near > 0.9, near, 0.0)

    def vector(self, layer, i):
        return self.rows[self.indices(layer).index(i)]

    def projection_rows(self, layer):
        return None


def test_only_what_is_about_the_concept_is_selected(model, tokenizer):
    rng = random.Random(0)
    rows = []
    for row in range(300):
        words = rng.choices(WORDS[2:-1], k=12)
        words[6:6] = [("question", "file", "return")[row % 3]]
        rows.append({"text": " ".join(words)})
    concept = Concept("asking", "Somebody asks something.", ["question"])
    chosen = read_and_select(model, Chats(tokenizer, rows), Latents(model, tokenizer), concept, n=40)

    assert chosen.selection == {EMBEDDING: [7]}
    about, other = sorted(chosen.reasons, key=lambda reason: reason.index)
    assert '"question"' in about.explanation and about.score > 0.9
    assert other.relevance < 95 and other.code == "below_threshold"
    again = read_and_select(model, Chats(tokenizer, rows), Latents(model, tokenizer), concept, n=40)
    assert again == chosen
