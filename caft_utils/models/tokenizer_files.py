"""Read the tokenizer of a model, and refuse one that transformers would make up.

From a folder without a tokenizer, transformers returns the few special tokens of the architecture's usual
one, and with them every text is empty. A tokenizer of another model gives ids that have no embedding.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from caft_utils.models.sources import ModelSource
from caft_utils.models.weight_files import first_line, hide_progress_bars, json_object, refusal_of_own_code

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Classes that read tokenizer.json as it is. Other classes rebuild parts of it by their own rules.
PLAIN_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")


def read_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Return the tokenizer as it was saved. Its pad token is its end-of-sequence token if it has none.

    Most classes of transformers 5 build a tokenizer by rules of their own and take only vocabulary and merges
    from tokenizer.json. GPT2Tokenizer, for example, drops SmolLM2's rule that splits numbers into digits. If
    a class splits or normalises text in another way than tokenizer.json says, the file is read as it is.

    Raises:
        ValueError: there is no vocabulary, a file is damaged, or the files ask for code of their own.
    """
    import transformers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = Path(source.location)
    settings = json_object(folder / "tokenizer_config.json")
    named = str(settings.get("tokenizer_class") or "")
    # Where transformers does not know the class, it would take that of the model's type.
    known = bool(named) and any(hasattr(transformers, name) for name in (named, f"{named}Fast"))
    auto_map = settings.get("auto_map") or {}
    if not known and (isinstance(auto_map, list) or "AutoTokenizer" in auto_map):
        raise ValueError(refusal_of_own_code(source.location, "tokenizer_config.json"))
    plain = named in PLAIN_TOKENIZERS and (folder / "tokenizer.json").is_file()
    tokenizer_class = PreTrainedTokenizerFast if plain else AutoTokenizer
    remedy = "copy the tokenizer's files there, or write them with `tokenizer.save_pretrained(folder)`"
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if "vocab.json" in files and not files & {"merges.txt", "tokenizer.json"}:
        raise ValueError(f"the tokenizer in {folder} has a vocab.json but no merges.txt; {remedy}")
    try:
        with hide_progress_bars():
            tokenizer = tokenizer_class.from_pretrained(
                source.location, revision=source.revision, trust_remote_code=False
            )
    except BaseException as error:  # the files may be missing or damaged in many ways
        # A panic inside the tokenizers package is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(
            f"no tokenizer can be read from {source.location} ({first_line(error)}); {remedy}"
        ) from error
    # Without a vocabulary, transformers returns the special tokens of the model's usual tokenizer.
    if not set(tokenizer.get_vocab()) - {str(token) for token in _added(tokenizer)}:
        raise ValueError(
            f"there is no tokenizer in {source.location}: no vocabulary beyond {len(tokenizer)} special "
            f"tokens was found; {remedy}"
        )
    if not plain and _splits_otherwise(tokenizer, source):
        with hide_progress_bars():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(source.location, revision=source.revision)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _splits_otherwise(tokenizer: PreTrainedTokenizerBase, source: ModelSource) -> bool:
    """Return whether a tokenizer normalises or splits text in another way than tokenizer.json says."""
    from tokenizers import Tokenizer
    from transformers.utils import cached_file

    built = getattr(tokenizer, "backend_tokenizer", None)
    file = cached_file(
        source.location,
        "tokenizer.json",
        revision=source.revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if built is None or file is None:
        return False
    saved, used = (json.loads(one.to_str()) for one in (Tokenizer.from_file(file), built))
    return any(saved[part] != used[part] for part in ("normalizer", "pre_tokenizer"))


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, location: str) -> None:
    """Refuse a tokenizer that gives token ids for which the model has no embedding.

    Special tokens that text and chat template never produce may lie beyond the embedding: Gemma 3 keeps the
    token of its images in the tokenizers of its text models too.

    Raises:
        ValueError: a token of ordinary text, of the chat template, or that begins, ends or pads a row, is
            beyond the embedding.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    beyond = {token: i for token, i in tokenizer.get_vocab().items() if i >= rows}
    if not beyond:
        return
    added = {str(token) for token in _added(tokenizer)}
    named = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token}
    template = str(tokenizer.chat_template or "")
    used = [token for token in beyond if token not in added or token in named or token in template]
    if used:
        examples = ", ".join(f"{token!r} ({beyond[token]})" for token in used[:3])
        raise ValueError(
            f"the tokenizer in {location} does not belong to the model: {len(used)} of its tokens, such as "
            f"{examples}, are beyond the model's {rows} embeddings; copy the model's own tokenizer there. If "
            "you added tokens, call model.resize_token_embeddings(len(tokenizer)), train them and save both"
        )


def _added(tokenizer: PreTrainedTokenizerBase) -> Iterable[object]:
    """Return the tokens that were added to the vocabulary. Not every class of tokenizer lists them."""
    return getattr(tokenizer, "added_tokens_decoder", {}).values()
