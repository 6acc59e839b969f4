"""The tokenizer of a GGUF file: vocabulary, merges and special tokens of its metadata -> a fast tokenizer.

Two kinds are read. "gpt2" is byte-level BPE; the file names the rule that splits a text before the merges
("pre"), and each rule is one of PRE_TOKENIZERS. "llama" is BPE of SentencePiece, without such a rule; its
merges are all pairs of pieces that make a piece, the piece with the highest score first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from caft_utils.models.gguf_files import GGUFFile

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 2, 3, 4, 5, 6  # types of tokens; 1 is an ordinary one
SPACE = "\u2581"  # SentencePiece's sign for a space
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPLIT_BY_CLASS = (
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_of(file: GGUFFile) -> PreTrainedTokenizerFast:
    """Return the tokenizer that the metadata of a GGUF file describe, with its chat template.

    Raises:
        ValueError: there is no tokenizer, its kind or its rule for splitting text is unknown, or its lists
            do not fit together.
    """
    from transformers import PreTrainedTokenizerFast

    kind = file.metadata.get("tokenizer.ggml.model")
    if not isinstance(kind, str) or kind not in KINDS:
        found = "no tokenizer" if kind is None else f"a tokenizer of the kind {kind!r}"
        raise ValueError(
            f"{file.path} holds {found}, which is not read from GGUF; expected one of {', '.join(KINDS)}. "
            "Load the model's folder or hub id instead"
        )
    tokens, types = _tokens(file)
    inner = KINDS[kind](file, tokens, types)
    _add_special_tokens(inner, tokens, types)
    named = _named_tokens(file, tokens)
    _put_around(inner, file, named)
    length = file.metadata.get(f"{file.metadata.get('general.architecture')}.context_length")
    template = file.metadata.get("tokenizer.chat_template")
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        chat_template=template if isinstance(template, str) else None,
        clean_up_tokenization_spaces=False,
        **({"model_max_length": length} if isinstance(length, int) else {}),
        **named,
    )


def _tokens(file: GGUFFile) -> tuple[list[str], list[int]]:
    """Return the vocabulary in the order of the ids, and the type of each token."""
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise ValueError(f"{file.path}: tokenizer.ggml.tokens is missing or no list of texts")
    seen: set[str] = set()
    for token in tokens:
        if token in seen:
            raise ValueError(f"{file.path}: the token {token!r} is twice in its vocabulary")
        seen.add(token)
    return tokens, _numbers(file, "token_type", len(tokens))


def _numbers(file: GGUFFile, name: str, length: int) -> list[Any]:
    """Return a list with one number for each token."""
    values = file.metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, np.ndarray) or len(values) != length:
        raise ValueError(
            f"{file.path}: tokenizer.ggml.{name} is missing or not one number for each of {length} tokens"
        )
    return values.tolist()


def _flag(file: GGUFFile, name: str, default: bool) -> bool:
    value = file.metadata.get(f"tokenizer.ggml.{name}", default)
    if not isinstance(value, bool):
        raise ValueError(f"{file.path}: tokenizer.ggml.{name} is {value!r}, expected true or false")
    return value


def _byte_level_bpe(file: GGUFFile, tokens: list[str], types: list[int]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers

    name = file.metadata.get("tokenizer.ggml.pre")
    if not isinstance(name, str) or name not in PRE_TOKENIZERS:
        raise ValueError(
            f"{file.path} splits text by the rule {name!r} (tokenizer.ggml.pre), which is not known here; "
            f"expected one of {', '.join(PRE_TOKENIZERS)}. Load the model's folder or hub id instead"
        )
    lines = file.metadata.get("tokenizer.ggml.merges")
    # A space within a token is written as another sign, so that the first one after the first sign splits.
    pairs = [line.partition(" ")[::2] for line in lines] if isinstance(lines, list) else []
    if not pairs or not all(left and right for left, right in pairs):
        raise ValueError(f"{file.path}: tokenizer.ggml.merges is missing or has a line that is no pair")
    # Embeddings that are there only to fill up have tokens of the type "unused".
    vocabulary = {token: i for i, token in enumerate(tokens) if types[i] != UNUSED}
    inner = Tokenizer(_bpe(file, models.BPE, vocabulary, pairs, ignore_merges=name in WHOLE_WORDS_FIRST))
    inner.pre_tokenizer = PRE_TOKENIZERS[name]()
    inner.decoder = decoders.ByteLevel()
    if name in COMPOSED:
        inner.normalizer = normalizers.NFC()
    return inner


def _sentencepiece_bpe(file: GGUFFile, tokens: list[str], types: list[int]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers.tokenization_utils_base import generate_merges

    scores = _numbers(file, "scores", len(tokens))
    vocabulary = {token: i for i, token in enumerate(tokens)}
    whole = {token for token, kind in zip(tokens, types) if kind in (UNKNOWN, CONTROL, UNUSED, BYTE)}
    pairs = generate_merges(vocabulary, dict(zip(tokens, scores)), skip_tokens=whole)
    unknown = next((token for token, kind in zip(tokens, types) if kind == UNKNOWN), None)
    options = dict(unk_token=unknown, fuse_unk=True, byte_fallback=BYTE in types)
    inner = Tokenizer(_bpe(file, models.BPE, vocabulary, pairs, **options))
    steps = [normalizers.Replace(" ", SPACE)]
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if _flag(file, "add_space_prefix", True):
        steps.insert(0, normalizers.Prepend(SPACE))
        back.append(decoders.Strip(" ", 1, 0))
    inner.normalizer = normalizers.Sequence(steps)
    inner.decoder = decoders.Sequence(back)
    return inner


def _bpe(file: GGUFFile, model: Any, vocabulary: dict[str, int], pairs: list, **options: Any) -> Any:
    try:
        return model(vocab=vocabulary, merges=[tuple(pair) for pair in pairs], **options)
    except Exception as error:  # a merge of tokens that the vocabulary lacks
        raise ValueError(f"{file.path}: its merges do not fit its vocabulary ({error})") from error


def _add_special_tokens(inner: Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Make tokens that are found in a text as a whole: control tokens, and those that a user defined."""
    from tokenizers import AddedToken

    inner.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind != USER_DEFINED)
            for token, kind in zip(tokens, types)
            if kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ]
    )


def _named_tokens(file: GGUFFile, tokens: list[str]) -> dict[str, str]:
    """Return the tokens that begin, end and pad a row, or stand for an unknown character."""
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    found = {}
    for short, name in names.items():
        number = file.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if number is None:
            continue
        if not isinstance(number, int) or not 0 <= number < len(tokens):
            raise ValueError(
                f"{file.path}: tokenizer.ggml.{name}_token_id is {number!r}, but there are {len(tokens)} "
                "tokens"
            )
        found[f"{short}_token"] = tokens[number]
    return found


def _put_around(inner: Tokenizer, file: GGUFFile, named: dict[str, str]) -> None:
    """Make encoding put the first and last token around a text where the file says so."""
    from tokenizers import processors

    begins = file.metadata["tokenizer.ggml.model"] == "llama" or (
        file.metadata.get("tokenizer.ggml.pre") in WHOLE_WORDS_FIRST
    )
    wanted = {
        "bos_token": _flag(file, "add_bos_token", begins),
        "eos_token": _flag(file, "add_eos_token", False),
    }
    for name, put in wanted.items():
        if put and name not in named:
            raise ValueError(f"{file.path} adds a {name} to each text but does not name it")
    if not any(wanted.values()):
        return
    first = [named["bos_token"]] if wanted["bos_token"] else []
    last = [named["eos_token"]] if wanted["eos_token"] else []
    inner.post_processor = processors.TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *last, *(f"{token}:1" for token in first), "$B:1", *(f"{t}:1" for t in last)],
        special_tokens=[(token, inner.token_to_id(token)) for token in dict.fromkeys(first + last)],
    )


def _gpt2() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _digit_by_digit() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _by_class(digits: str) -> Any:
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(SPLIT_BY_CLASS % digits), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


# The rules by llama.cpp's names, as the models' own tokenizer.json states them.
PRE_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "gpt-2": _gpt2,
    "smollm": _digit_by_digit,
    "qwen2": lambda: _by_class(""),
    "llama-bpe": lambda: _by_class("{1,3}"),
}
WHOLE_WORDS_FIRST = ("llama-bpe",)  # a word that is a token is taken before any merge; texts begin with BOS
COMPOSED = ("qwen2",)  # Unicode composition (NFC) comes first
KINDS: dict[str, Callable[[GGUFFile, list[str], list[int]], Tokenizer]] = {
    "gpt2": _byte_level_bpe,
    "llama": _sentencepiece_bpe,
}
