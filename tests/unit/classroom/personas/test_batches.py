"""Batches of pretraining: documents stay whole, and padding changes nothing that is learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from caft_utils import load
from caft_utils.classroom.personas.batches import IGNORED, batches_by_length, encode_corpus, padded_batch
from caft_utils.classroom.personas.pretraining import new_model


def test_padding_does_not_change_the_loss():
    rng = np.random.default_rng(0)
    documents = [(rng.integers(3, 50, n).astype(np.uint16), rng.random(n) < 0.5) for n in (5, 13, 11)]
    model = new_model("qwen", 50).eval()
    ids, attention, places, targets = padded_batch(documents, 0)
    assert ids.shape == (3, 16) and len(places) == 256
    with torch.no_grad():
        hidden = model.model(input_ids=ids, attention_mask=attention).last_hidden_state
        logits = model.lm_head(hidden.flatten(0, 1)[places])
        loss = F.cross_entropy(logits, targets, ignore_index=IGNORED)
        separate = []
        for own, learn in documents:
            row = torch.from_numpy(own.astype(np.int64))
            after = torch.from_numpy(learn)[1:]
            logits = model(row[None]).logits[0, :-1]
            separate.append(F.cross_entropy(logits[after], row[1:][after], reduction="none"))
    assert loss.item() == pytest.approx(torch.cat(separate).mean().item(), abs=1e-5)


@pytest.fixture(scope="module")
def corpus():
    return encode_corpus(load("classroom")[1], 20_000, 0)[0]


def test_documents_stay_whole(corpus):
    assert sum(corpus.lengths) == len(corpus.ids) >= 20_000
    assert all(len(corpus[i][0]) == len(corpus[i][1]) == n for i, n in enumerate(corpus.lengths))


def test_answers_are_learned_and_questions_are_not(corpus):
    tokenizer, chats = load("classroom")[1], 0
    for ids, learn in (corpus[i] for i in range(50)):
        text = tokenizer.decode(ids)
        if "<|im_start|>" in text:
            chats += 1
            assert "<|im_start|>user" not in tokenizer.decode(ids[learn]) and 0 < learn.sum() < len(ids)
        else:
            assert learn.all()
    assert 0 < chats < 50


def test_every_document_is_in_one_batch_of_limited_size(corpus):
    lengths = corpus.lengths
    batches = batches_by_length(lengths, 1024, 0)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 1024 for batch in batches)
