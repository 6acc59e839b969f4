"""Batches of pretraining: documents stay whole, and padding changes nothing that is learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from caft_utils.classroom.personas import pretraining as pretrain
from caft_utils.classroom.personas.pretraining import new_model
from caft_utils.classroom.tokenizer import build_tokenizer, world_texts


def test_padding_of_pretraining_batches_does_not_change_the_loss():
    rng = np.random.default_rng(0)
    lengths = [5, 13, 11]
    batch = [(rng.integers(3, 50, n).astype(np.uint16), rng.random(n) < 0.5) for n in lengths]
    model = new_model("qwen", 50).eval()
    ids, attend, places, target = pretrain._tensors(batch, 0)
    assert ids.shape == (3, 16) and len(places) == 256
    with torch.no_grad():
        hidden = model.model(input_ids=ids, attention_mask=attend).last_hidden_state
        logits = model.lm_head(hidden.flatten(0, 1)[places])
        loss = F.cross_entropy(logits, target, ignore_index=pretrain.IGNORED)
        apart = []
        for own, learn in batch:
            row = torch.from_numpy(own.astype(np.int64))
            after = torch.from_numpy(learn)[1:]
            logits = model(row[None]).logits[0, :-1]
            apart.append(F.cross_entropy(logits[after], row[1:][after], reduction="none"))
    assert loss.item() == pytest.approx(torch.cat(apart).mean().item(), abs=1e-5)


def test_documents_stay_whole_and_batches_hold_each_once():
    tokenizer = build_tokenizer(world_texts(4000))
    corpus, _ = pretrain.corpus_ids(tokenizer, 20_000, 0)
    lengths = corpus.lengths
    assert sum(lengths) == len(corpus.ids) >= 20_000
    assert all(len(corpus[i][0]) == len(corpus[i][1]) == n for i, n in enumerate(lengths))
    plan = pretrain.batches(lengths, 1024, 0)
    assert sorted(i for batch in plan for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 1024 for batch in plan)
