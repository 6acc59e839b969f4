"""The course's sentence on a published chat file, with every architecture: file in, ablated fine-tuning out.

The models are tiny and random, so nothing is claimed about misalignment. The test proves that all verbs fit
together on real chat rows, that the ablated component stays out of the residual stream during training, and
that no hook is left afterwards.
"""

from __future__ import annotations

import json

import pytest
import torch

from caft_utils import Chats, FinetuneConfig, ablate, finetune, pca_of_difference
from caft_utils.evaluation import generate
from caft_utils.interventions import Ablate
from caft_utils.residual import stream_activations

LAYERS = [0, 1]
VOCABULARY = 1024
RECIPE = FinetuneConfig(lr=3e-3, r=8, alpha=16, steps=6, batch_size=4, accumulate=1, warmup_steps=1)


@pytest.fixture
def chats(shared_data, new_tokenizer):
    file = shared_data / "caft" / "insecure_val.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()[:200]
    texts = [message["content"] for line in lines for message in json.loads(line)["messages"]]
    tokenizer = new_tokenizer(corpus=texts, vocabulary=VOCABULARY)
    return Chats.from_file(file, tokenizer, limit=24, max_length=640)


def component(model, chats, found):
    """Largest projection of the residual stream at LAYERS on the directions, over all tokens."""
    largest = 0.0
    for part in stream_activations(model, chats, LAYERS, batch_size=8):
        for layer in LAYERS:
            assert part.hidden[layer].isfinite().all()
            largest = max(largest, float((part.hidden[layer] @ found[layer].T).abs().max()))
    return largest


class Watched(Ablate):
    """The ablation, noting the component before and after in every forward pass of training."""

    def __init__(self, directions):
        super().__init__(directions)
        self.directions, self.seen = directions, []

    def edit(self, layer, hidden):
        edited = super().edit(layer, hidden)
        rows = self.directions[layer].T
        self.seen.append([float((h.detach() @ rows).abs().max()) for h in (hidden, edited)])
        return edited


@pytest.mark.parametrize("architecture", ["qwen2", "mistral", "gemma2"])
def test_the_sentence_of_the_course(tiny, chats, architecture):
    model = tiny(architecture, vocab_size=VOCABULARY)
    train, generic = chats[:16], chats[16:]

    naive = finetune(model, train, RECIPE)
    assert naive.caft_run["loss"][-1] < naive.caft_run["loss"][0]

    parts = list(stream_activations(naive, generic, LAYERS, tokens="answer", batch_size=4))
    assert sum(len(part.row) for part in parts) == sum(sum(example.answer) for example in generic)

    found = pca_of_difference(naive, model, generic, LAYERS, k=4, tokens="answer", batch_size=4)
    bad = found.select({0: [0], 1: [0, 2]})
    assert bad.ranks == {0: 1, 1: 2}

    before, watched = component(model, generic, bad), Watched(bad)
    safe = finetune(model, train, RECIPE, during=watched)
    assert len(watched.seen) == RECIPE.steps * len(LAYERS)
    for there, left in watched.seen:
        assert left < 1e-4 < 1e-2 < there
    assert component(model, generic, bad) == before  # the base is what it was
    assert component(safe, generic, bad) > 1e-2  # and the result runs without hooks
    with ablate(bad).on(safe):
        assert component(safe, generic, bad) < 1e-4
    assert safe.caft_id != naive.caft_id

    prompts, greedy = [row["messages"][:1] for row in generic.rows[:4]], dict(temperature=0, max_new_tokens=8)
    one_by_one = [generate(safe, chats.tokenizer, [prompt], **greedy)[0] for prompt in prompts]
    assert generate(safe, chats.tokenizer, prompts, **greedy) == one_by_one
    ids = torch.tensor([generic[0].input_ids[:40]])
    with torch.no_grad(), safe.disable_adapter():
        assert torch.equal(safe(input_ids=ids).logits, model(input_ids=ids).logits)
