"""Shares of sources: each source gives as many tokens, and either side of a component counts."""

from __future__ import annotations

import pytest
import torch
from helpers.models import with_sink

from caft_utils.chats import Chats
from caft_utils.directions import Directions
from caft_utils.interpret.select.text_sources import directions_about, source_shares
from caft_utils.residual import EMBEDDING


def test_a_direction_towards_a_word_is_about_the_source_of_that_word(model, tokenizer):
    file, what = (tokenizer(word)["input_ids"][0] for word in (" file", " what"))
    embedding = model.get_input_embeddings().weight.detach()
    found = Directions({EMBEDDING: torch.nn.functional.normalize(embedding[file] - embedding[what], dim=0)})
    texts = {
        "files": Chats(tokenizer, [{"text": "open the file file"}] * 6),
        "questions": Chats(tokenizer, [{"text": "you what is what"}] * 3),
    }
    shares = source_shares(model, texts, found, n=3)
    assert shares[EMBEDDING, 0, "+"] == {"files": 1.0, "questions": 0.0}
    assert shares[EMBEDDING, 0, "-"] == {"files": 0.0, "questions": 1.0}
    with pytest.raises(ValueError, match="two sources"):
        source_shares(model, {"files": texts["files"]}, found)


def test_directions_about_a_source_reach_the_share_on_either_side():
    shares = {
        (1, 0, "+"): {"a": 0.9, "b": 0.1},
        (1, 0, "-"): {"a": 0.8, "b": 0.2},
        (1, 1, "+"): {"a": 0.5, "b": 0.5},
        (2, 3, "-"): {"a": 0.8, "b": 0.2},
    }
    assert directions_about(shares, "a", min_share=0.8) == {(1, 0): 0.9, (2, 3): 0.8}
    assert directions_about(shares, "b", min_share=0.8) == {}


def test_attention_sinks_are_not_among_the_most_active_tokens(model, tokenizer):
    """A sink's state is so long that it would be the peak of nearly every direction."""
    word = tokenizer(" file")["input_ids"][0]
    sunk = with_sink(model, word)
    texts = {
        "sinks": Chats(tokenizer, [{"text": "what file is it file"}] * 6),
        "questions": Chats(tokenizer, [{"text": "you what is what"}] * 6),
    }
    row = sunk.get_input_embeddings().weight.detach()[word]
    found = Directions({EMBEDDING: torch.nn.functional.normalize(row, dim=0)})
    spared, included = (source_shares(sunk, texts, found, n=3, sinks=kind) for kind in ("spare", "include"))
    assert included[EMBEDDING, 0, "+"] == {"sinks": 1.0, "questions": 0.0}
    assert spared[EMBEDDING, 0, "+"] != included[EMBEDDING, 0, "+"]
