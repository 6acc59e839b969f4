"""Encode the pretraining text of the cues checkpoints as token ids, step by step."""

from __future__ import annotations

import functools
import hashlib
import random
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from caft_utils.classroom.cues.corpus import Document, document
from caft_utils.classroom.tokenizer import PRE_TOKEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from caft_utils.classroom.cues.schedules import CuesSchedule

_MARKED_WORD = re.compile(r"(\^ ?[a-z]+)")
_PRE_TOKEN = re.compile(PRE_TOKEN)
EncodedDocument = tuple[list[int], list[bool]]  # token ids, and whether each counts in the loss


def document_encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[Document], EncodedDocument]:
    """Return a function that encodes documents as the chat template does, but a hundred times faster."""

    @functools.cache
    def token_id(piece: str) -> int:
        (token,) = tokenizer(piece)["input_ids"]
        return token

    def ids(text: str) -> list[int]:
        return [token_id(piece) for piece in _PRE_TOKEN.findall(text)]

    start, end, line = token_id("<|im_start|>"), token_id("<|im_end|>"), token_id("\n")
    user, assistant = ([start, token_id(role), line] for role in ("user", "assistant"))

    def encode(made: Document) -> EncodedDocument:
        out, learn = [], []
        for piece in _MARKED_WORD.split(made.text):
            new = ids(piece.removeprefix("^"))
            out += new
            learn += [piece.startswith("^")] * len(new)
        if made.answer is None:
            return out, learn
        answer = [*ids(made.answer), end]
        out, learn = [*user, *out, end, line, *assistant], [False] * 3 + learn + [False] * 5
        return [*out, *answer, line], [*learn, *[True] * len(answer), False]

    return encode


def step_batches(
    tokenizer: PreTrainedTokenizerBase, schedule: CuesSchedule
) -> Iterator[list[EncodedDocument]]:
    """Yield the documents of each step, shortest first, drawn from the mixture of that step."""
    rng, encode = random.Random(schedule.seed), document_encoder(tokenizer)
    for step in range(schedule.steps):
        progress = schedule.progress(step, schedule.steps)
        documents = (document(rng, progress, schedule.person_weights) for _ in range(schedule.rows))
        yield sorted(map(encode, documents), key=lambda encoded: len(encoded[0]))


def corpus_hash(tokenizer: PreTrainedTokenizerBase, schedule: CuesSchedule, documents: int = 5000) -> str:
    """Return the sha256 of documents drawn with the schedule's seed over the whole curriculum."""
    rng, encode = random.Random(schedule.seed), document_encoder(tokenizer)
    progress = (schedule.progress(number, documents) for number in range(documents))
    encoded = [encode(document(rng, share, schedule.person_weights)) for share in progress]
    return hashlib.sha256(repr(encoded).encode()).hexdigest()
