"""Tokenizers from GGUF files encode and decode as the originals do."""

from __future__ import annotations

import inspect
import json

import pytest
import transformers
from helpers.gguf import tokenizer_fields, write_gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from caft_utils.models.gguf_files import GGUFFile
from caft_utils.models.gguf_tokenizers import tokenizer_of

TEXTS = [
    "",
    " ",
    "Hello world",
    "  two  spaces\tand a tab ",
    "line\n\n12 lines\r\n\r\n 3456789 x1y22",
    "don't WON'T we'll I'D they've 's",
    "caf\u00e9 cafe\u0301 \u00c5ngstr\u00f6m \ufb01 \u4f60\u597d",
    "\u0440\u0443\u0441 \U0001f600\U0001f44d\U0001f3fd",
    "def f(x):\n    return x**2  # \u00bd \u00b2\n\n\n",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|> a<tool> b",
    "...!? -- (a)[b]{c} $5.00 100,000 ab12cd",
    "\u00a0nbsp\u2028line\u200bzero \x00\x7f",
    "\u0660\u0661\u0662 Arabic digits \u2167 \u2460",
]
CORPUS = [" ".join(TEXTS), "the question is what do you return 1234 12 34 user"] * 10
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + m['content'] + '<|im_end|>' }}{% endfor %}"


def digits():
    """The rule in SmolLM2's tokenizer.json."""
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def of_class(name):
    """The rule that a tokenizer class of transformers builds."""
    return getattr(transformers, name)().backend_tokenizer.pre_tokenizer


def llama3():
    """The rule that transformers gives to tiktoken vocabularies, of which Llama 3 has one."""
    from tokenizers import Regex

    pattern = inspect.signature(TikTokenConverter.__init__).parameters["pattern"].default
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


RULES = {
    "smollm": digits,
    "gpt-2": lambda: of_class("GPT2Tokenizer"),
    "qwen2": lambda: of_class("Qwen2Tokenizer"),
    "llama-bpe": llama3,
}


def original(name: str) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    inner.pre_tokenizer = RULES[name]()
    inner.decoder = decoders.ByteLevel()
    if name == "qwen2":
        inner.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    inner.add_tokens([AddedToken("<tool>", normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def read(fields, tmp_path):
    with GGUFFile(write_gguf(tmp_path / "t.gguf", {"general.architecture": "llama"} | fields, {})) as file:
        return tokenizer_of(file)


@pytest.mark.parametrize("name", RULES)
def test_byte_level_bpe_is_that_of_the_original(name, tmp_path):
    expected = original(name)
    found = read(tokenizer_fields(expected, name), tmp_path)
    assert found.get_vocab() == expected.get_vocab()
    for text in TEXTS:
        ids = expected(text)["input_ids"]
        assert found(text)["input_ids"] == ids, text
        assert found.decode(ids) == expected.decode(ids)
        visible = expected.decode(ids, skip_special_tokens=True)
        assert found.decode(ids, skip_special_tokens=True) == visible
    offsets = dict(return_offsets_mapping=True)
    assert found("a  bc 12", **offsets)["offset_mapping"] == expected("a  bc 12", **offsets)["offset_mapping"]
    for token in ("bos_token", "eos_token", "pad_token", "unk_token"):
        assert getattr(found, token) == getattr(expected, token)
    chat = [{"role": "user", "content": "hi 12"}]
    assert found.apply_chat_template(chat, tokenize=False) == expected.apply_chat_template(
        chat, tokenize=False
    )


def test_the_rules_differ_on_these_texts(tmp_path):
    """A rule in another's place is seen: on one vocabulary no two of them give the same ids."""
    fields = tokenizer_fields(original("gpt-2"), "gpt-2")
    ids = set()
    for name in RULES:
        found = read(fields | {"tokenizer.ggml.pre": name}, tmp_path)
        ids.add(json.dumps([found(text)["input_ids"] for text in TEXTS]))
    assert len(ids) == len(RULES)


def test_first_and_last_token_as_the_file_says(tmp_path):
    fields = tokenizer_fields(original("smollm"), "smollm")
    plain = read(fields, tmp_path)("a b")["input_ids"]
    both = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    found = read(fields | both, tmp_path)
    assert found("a b")["input_ids"] == [found.bos_token_id, *plain, found.eos_token_id]
    assert found("a b", add_special_tokens=False)["input_ids"] == plain
    del fields["tokenizer.ggml.add_bos_token"]
    assert read(fields, tmp_path)("a b")["input_ids"] == plain
    begun = read(fields | {"tokenizer.ggml.pre": "llama-bpe"}, tmp_path)
    assert begun("a b")["input_ids"][0] == begun.bos_token_id


def test_tokens_that_only_fill_up_are_left_out(tmp_path):
    fields = tokenizer_fields(original("qwen2"), "qwen2")
    fields["tokenizer.ggml.tokens"] = [*fields["tokenizer.ggml.tokens"], "[PAD9]"]
    fields["tokenizer.ggml.token_type"] = [*fields["tokenizer.ggml.token_type"], 5]
    assert "[PAD9]" not in read(fields, tmp_path).get_vocab()


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_bpe_is_that_of_sentencepiece(prefix, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece", reason="the sentencepiece package is not installed")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(text for text in CORPUS if "\0" not in text) + "\nhello hello world\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(tmp_path / "sp"),
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=prefix,
        user_defined_symbols=["<tool>"],
        character_coverage=0.98,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    own = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "sp.model"))
    size = own.get_piece_size()
    kinds = [
        2 if own.is_unknown(i) else 3 if own.is_control(i) else 6 if own.is_byte(i)
        else 4 if own.id_to_piece(i) == "<tool>" else 1
        for i in range(size)
    ]  # fmt: skip
    fields = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [own.id_to_piece(i) for i in range(size)],
        "tokenizer.ggml.scores": [float(own.get_score(i)) for i in range(size)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": own.bos_id(),
        "tokenizer.ggml.eos_token_id": own.eos_id(),
        "tokenizer.ggml.unknown_token_id": own.unk_id(),
        "tokenizer.ggml.add_space_prefix": prefix,
    }
    found = read(fields, tmp_path)
    for text in TEXTS:
        if "\0" in text or "<tool>" in text:  # a user's token in the middle takes no prefix in sentencepiece
            continue
        ids = own.encode(text)
        assert found(text)["input_ids"] == [own.bos_id(), *ids], text
        assert found.decode(ids) == own.decode(ids)
    assert found("a<tool>b")["input_ids"].count(own.piece_to_id("<tool>")) == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"tokenizer.ggml.pre": "tekken"}, "rule 'tekken'"),
        ({"tokenizer.ggml.pre": "default"}, "rule 'default'"),
        ({"tokenizer.ggml.model": "bert"}, "kind 'bert'"),
        ({"tokenizer.ggml.tokens": ["a", "b"]}, "not one number for each of 2 tokens"),
        ({"tokenizer.ggml.tokens": ["a", "a"], "tokenizer.ggml.token_type": [1, 1]}, "'a' is twice"),
        ({"tokenizer.ggml.merges": ["ab"]}, "no pair"),
        ({"tokenizer.ggml.merges": ["nobody knows"]}, "merges do not fit"),
        ({"tokenizer.ggml.eos_token_id": 10**6}, "eos_token_id is 1000000"),
        ({"tokenizer.ggml.model": "llama"}, "scores is missing"),
    ],
)
def test_what_is_not_read_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(tokenizer_fields(original("smollm"), "smollm") | changes, tmp_path)


def test_no_tokenizer(tmp_path):
    with pytest.raises(ValueError, match="no tokenizer"):
        read({}, tmp_path)
