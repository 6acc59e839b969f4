"""Tokenizers from files: the one that was saved, or an error."""

from __future__ import annotations

import json

import pytest
import transformers

from caft_utils.models import load
from caft_utils.models.sources import ModelSource
from caft_utils.models.tokenizer_files import read_tokenizer

CONFIGS = ["Qwen2Config", "LlamaConfig", "MistralConfig", "Gemma2Config", "OPTConfig", "GPTNeoXConfig"]


@pytest.mark.parametrize("config", [*CONFIGS, "Phi3Config", "CohereConfig"])
def test_no_tokenizer_is_made_up(config, tmp_path):
    getattr(transformers, config)().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tokenizer"):
        read_tokenizer(ModelSource(str(tmp_path)))


@pytest.mark.parametrize("named", ["TokenizersBackend", "PreTrainedTokenizerFast"])
def test_a_plain_tokenizer_stays_plain(checkpoint, tokenizer, named):
    path = checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": named}))
    text = "What  is\tthe question? 12345 don't"
    loaded = read_tokenizer(ModelSource(str(checkpoint)))
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("named", ["GPT2Tokenizer", "Qwen2Tokenizer", "LlamaTokenizer"])
def test_a_class_with_other_rules_does_not_replace_those_that_were_saved(checkpoint, named):
    """SmolLM2 splits numbers into digits, and names the class of GPT-2, which does not."""
    from tokenizers import Tokenizer, pre_tokenizers

    saved = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)
    saved.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    saved.save(str(checkpoint / "tokenizer.json"))
    path = checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": named}))
    text = "in 2026 there are 12345 don'ts"
    loaded = read_tokenizer(ModelSource(str(checkpoint)))
    assert loaded(text, add_special_tokens=False)["input_ids"] == saved.encode(text).ids


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_damaged_files(checkpoint, file):
    (checkpoint / file).write_text('{"model": ')
    with pytest.raises(ValueError, match="saved"):
        load(checkpoint)


def test_a_vocabulary_without_merges(checkpoint, tokenizer):
    for path in checkpoint.glob("tokenizer*"):
        path.unlink()
    (checkpoint / "vocab.json").write_text(json.dumps(tokenizer.get_vocab()))
    with pytest.raises(ValueError, match="merges"):
        load(checkpoint)


def test_a_tokenizer_with_more_tokens_than_the_model_has_embeddings(checkpoint, tiny):
    tiny("qwen2", vocab_size=300).save_pretrained(checkpoint)
    with pytest.raises(ValueError, match="300 embeddings"):
        load(checkpoint)


@pytest.mark.parametrize("how", ["pad", "template", "unused"])
def test_added_tokens_beyond_the_embedding(checkpoint, new_tokenizer, tiny, how):
    """A token that neither text nor template produces may be there, as in Gemma 3."""
    own = new_tokenizer()
    tiny("qwen2", vocab_size=len(own)).save_pretrained(checkpoint)
    own.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]}, False)
    if how == "pad":
        own.pad_token = "<image_soft_token>"
    if how == "template":
        own.chat_template = "{{ '<image_soft_token>' }}" + own.chat_template
    own.save_pretrained(checkpoint)
    if how == "unused":
        assert len(load(checkpoint)[1]) == load(checkpoint)[0].config.vocab_size + 1
    else:
        with pytest.raises(ValueError, match="image_soft_token"):
            load(checkpoint)


def test_a_panic_of_the_tokenizers_package_is_an_error_like_others(checkpoint):
    path = checkpoint / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["continuing_subword_prefix"] = "a prefix longer than any token"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="tokenizer"):
        read_tokenizer(ModelSource(str(checkpoint)))
