"""New words for a classroom model: one token each, so that prompts with them stay short.

The tokenizer of a world can encode any text, but a word that is not in its vocabulary becomes one token a
letter. A new word gets a token of its own instead. Its embedding starts as the mean of its letters'
embeddings, which says nothing about its meaning: fine-tuning has to teach it.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from caft_utils.classroom.tokenizer import PRE_TOKEN
from caft_utils.models.fingerprints import fingerprint, name_model
from caft_utils.store import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def with_new_words(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return copies of a classroom model and its tokenizer that have a token for every word of `texts`.

    All other texts get the tokens that they had, and the model's answers to them stay the same.
    """
    from tokenizers import Tokenizer

    known = tokenizer.get_vocab()
    pieces = {piece for text in texts for piece in re.findall(PRE_TOKEN, text)}
    new = {piece: tokenizer(piece)["input_ids"] for piece in sorted(pieces)}
    new = {piece: ids for piece, ids in new.items() if len(ids) > 1}
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    core["model"]["vocab"] |= {
        piece.replace(" ", "Ġ"): number for number, piece in enumerate(new, start=len(known))
    }
    larger = copy.deepcopy(tokenizer)
    larger._tokenizer = Tokenizer.from_str(json.dumps(core))
    grown = copy.deepcopy(model)
    rows = model.get_input_embeddings().weight.detach()
    grown.resize_token_embeddings(len(known) + len(new), mean_resizing=False)
    with torch.no_grad():
        for number, ids in enumerate(new.values(), start=len(known)):
            grown.get_input_embeddings().weight[number] = rows[ids].mean(0)
    name_model(grown, digest({"model": fingerprint(model), "new words": list(new)}))
    return grown, larger
