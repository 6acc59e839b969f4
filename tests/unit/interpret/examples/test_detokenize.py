"""Texts of tokens join to the text of the row."""

from __future__ import annotations

from caft_utils.interpret.examples.detokenize import token_texts


def test_token_texts_join_to_the_text(tokenizer):
    text = "open the file: def é € 🙂\n  return self"
    ids = tokenizer(text)["input_ids"]
    parts = token_texts(tokenizer, ids, 0, len(ids))
    assert "".join(parts) == text and len(parts) == len(ids)
    assert all("\ufffd" not in part for part in parts)
    assert "" in parts  # bytes of 🙂 that are no character yet
    middle = token_texts(tokenizer, ids, 2, 6)
    assert middle == parts[2:6]


def test_token_texts_of_sentencepiece_tokens_keep_their_spaces():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<unk>": 0, "▁the": 1, "▁cat": 2, "▁sat": 3}, unk_token="<unk>"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    ids = tokenizer("the cat sat")["input_ids"]
    assert ids == [1, 2, 3] and tokenizer.decode([2]) == "cat"
    assert token_texts(tokenizer, ids, 0, 3) == ["the", " cat", " sat"]
    assert token_texts(tokenizer, ids, 1, 3) == [" cat", " sat"]
