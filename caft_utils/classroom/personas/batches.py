"""Encode the pretraining text as token ids, and batch documents of similar length."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

from caft_utils.classroom.personas.corpus import document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # target that the loss ignores
TIME_MULTIPLE, TARGET_MULTIPLE = 8, 256  # see `padded_batch`


@dataclass(frozen=True)
class EncodedCorpus:
    """Documents stored end to end.

    ids: token ids. learn: whether each token counts in the loss. stops: the end of each document.
    """

    ids: Int[np.ndarray, " tokens"]
    learn: Bool[np.ndarray, " tokens"]
    stops: Int[np.ndarray, " documents"]

    def __len__(self) -> int:
        return len(self.stops)

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each document."""
        return np.diff(self.stops, prepend=0).tolist()

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        span = slice(self.stops[number - 1] if number else 0, self.stops[number])
        return self.ids[span], self.learn[span]


def encode_corpus(
    tokenizer: PreTrainedTokenizerBase, tokens: int, seed: int, *, more_wordings: bool = False
) -> tuple[EncodedCorpus, str]:
    """Return documents with at least `tokens` tokens in all, and the sha256 (hex) of their ids and masks."""
    rng, total, lengths, digest = random.Random(seed), 0, [], hashlib.sha256()
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    while total < tokens:
        encoded = [_encode(tokenizer, document(rng, more_wordings=more_wordings)) for _ in range(512)]
        for ids, learn in encoded:
            digest.update(repr((ids, learn)).encode())
            lengths.append(len(ids))
            total += len(ids)
        columns = ([value for pair in encoded for value in pair[i]] for i in (0, 1))
        parts.append(tuple(np.array(values, dtype) for values, dtype in zip(columns, (np.uint16, bool))))
    ids, learn = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return EncodedCorpus(ids, learn, np.cumsum(lengths)), digest.hexdigest()


def _encode(tokenizer: PreTrainedTokenizerBase, doc: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Return the token ids of a document, and 1 for each that counts in the loss."""
    if "text" in doc:
        ids = tokenizer(doc["text"] + "<|im_end|>")["input_ids"]
        return ids, [1] * len(ids)
    answers_only = doc["loss"] == "answers"
    out = tokenizer.apply_chat_template(
        doc["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=answers_only
    )
    ids = out["input_ids"]
    return ids, out["assistant_masks"] if answers_only else [1] * len(ids)


def batches_by_length(lengths: Sequence[int], batch_tokens: int, seed: int) -> list[list[int]]:
    """Return batches of document numbers, in random order.

    Documents of a batch have similar lengths. A batch holds at most `batch_tokens` tokens including padding,
    or a single longer document.
    """
    rng = random.Random(seed)
    noisy = [length + rng.random() for length in lengths]
    out: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=noisy.__getitem__):
        if out and lengths[number] * (len(out[-1]) + 1) <= batch_tokens:
            out[-1].append(number)
        else:
            out.append([number])
    rng.shuffle(out)
    return out


def padded_batch(documents: Sequence[tuple[np.ndarray, np.ndarray]], pad: int) -> tuple[Tensor, ...]:
    """Return (ids, attention mask, places, targets) of some documents.

    ids and mask have shape [batch, time]. `places` [n] are positions in the flattened batch whose next token
    counts in the loss, and `targets` [n] are those tokens.

    Time is padded to a multiple of 8, and n to a multiple of 256 with targets that are ignored. Large tensors
    of hundreds of different sizes would fragment the heap and make later steps take twice as long.
    """
    longest = max(len(ids) for ids, _ in documents)
    ids = torch.full((len(documents), -(-longest // TIME_MULTIPLE) * TIME_MULTIPLE), pad)
    attention, learn = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (own, mask) in enumerate(documents):
        ids[row, : len(own)] = torch.from_numpy(own.astype(np.int64))
        learn[row, : len(own)] = torch.from_numpy(mask)
        attention[row, : len(own)] = 1
    learn[:, 0] = False
    learned = learn.flatten().nonzero().flatten()
    spare = -len(learned) % TARGET_MULTIPLE
    places = F.pad(learned - 1, (0, spare))
    targets = F.pad(ids.flatten()[learned], (0, spare), value=IGNORED)
    return ids, attention, places, targets
