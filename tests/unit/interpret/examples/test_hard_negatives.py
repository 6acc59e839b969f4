"""Similarity of windows by their words."""

from __future__ import annotations

import torch

from caft_utils.chats import Chats
from caft_utils.interpret.examples.hard_negatives import WordSimilarity


def test_similarity_is_the_cosine_of_tf_idf(tokenizer):
    texts = ["open open file", "open return", "self return", "file file self file"]
    chats = Chats(tokenizer, [{"text": f"the {text}"} for text in texts])
    ids = [example.input_ids for example in chats]
    vocabulary = sorted({t for row in ids for t in row})
    counts = torch.tensor([[float(row.count(t)) for t in vocabulary] for row in ids])
    weights = counts * (((1 + 4) / (1 + (counts > 0).sum(0))).log() + 1)
    unit = torch.nn.functional.normalize(weights)
    similarity = WordSimilarity(chats)
    vectors, terms = similarity.vectors(ids)
    got = vectors @ similarity.mean_vectors([[ids[0]], [ids[1], ids[2]], []])[terms]
    mean = torch.nn.functional.normalize(unit[1] + unit[2], dim=0)
    torch.testing.assert_close(got, torch.stack([unit @ unit[0], unit @ mean, torch.zeros(4)], 1))
