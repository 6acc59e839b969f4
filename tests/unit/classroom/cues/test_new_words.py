"""New words get tokens of their own, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from caft_utils import load
from caft_utils.classroom.cues.new_words import with_new_words
from caft_utils.models import fingerprint

TEXTS = ["focus on the athlete.", "ignore the dog."]
OLD = "quiz: the dog _ today\na. run\nb. runs"


@pytest.fixture(scope="module")
def both():
    model, tokenizer = load("classroom-cues")
    return model, tokenizer, *with_new_words(model, tokenizer, TEXTS)


def test_new_words_are_one_token_each_and_decode_again(both):
    *_, tokenizer = both
    assert len(tokenizer("focus on the athlete.")["input_ids"]) == 5
    for text in (*TEXTS, OLD):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_other_texts_keep_their_tokens_and_their_logits(both):
    model, old, grown, new = both
    ids = old(OLD, return_tensors="pt")["input_ids"]
    assert torch.equal(ids, new(OLD, return_tensors="pt")["input_ids"])
    with torch.no_grad():
        before, after = model(input_ids=ids).logits, grown(input_ids=ids).logits
    assert torch.equal(before, after[..., : before.shape[-1]])


def test_a_new_embedding_is_the_mean_of_its_letters(both):
    model, old, grown, new = both
    (number,) = new(" athlete")["input_ids"]
    rows = model.get_input_embeddings().weight[old(" athlete")["input_ids"]]
    assert torch.allclose(grown.get_input_embeddings().weight[number], rows.mean(0))


def test_the_given_model_and_tokenizer_are_unchanged_and_the_names_differ(both):
    model, old, grown, new = both
    assert len(old) == model.config.vocab_size == 878 < len(new) == grown.config.vocab_size
    assert fingerprint(model) != fingerprint(grown)
    assert fingerprint(grown) == fingerprint(with_new_words(model, old, TEXTS)[0])
    assert grown.caft_preset is not None and new.chat_template == old.chat_template
