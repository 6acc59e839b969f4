"""Which tokens of a text are read: by the name of their place, or by their position in each row.

    "all"          every token
    "answer"       the tokens of assistant answers with their end of turn
    "last_prompt"  the last token before each answer, whose hidden state predicts how the answer begins
    positions      those given: [3, 5, ...] for one token of each row, or [[3], [0, 5], ...] for any number

An answer's own tokens come too late to show how it was chosen, because the state that decides is the one that
predicts its first token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from caft_utils.arguments import whole

if TYPE_CHECKING:
    from caft_utils.chats.collection import Batch, Chats

PlaceName = Literal["all", "answer", "last_prompt"]
Tokens = PlaceName | Sequence[int] | Sequence[Sequence[int]]
"""A place by its name, or for each row the position or positions to read, see `caft_utils.chats.reading`."""


def where_to_read(tokens: Tokens, chats: Chats) -> str | list[list[int]]:
    """Return the name of a place, or the sorted positions of every row.

    Raises:
        ValueError: the name is unknown, there is not one entry for each row, or a row lacks a position.
    """
    if isinstance(tokens, str):
        if tokens not in PlaceName.__args__:
            names = ", ".join(map(repr, PlaceName.__args__))
            raise ValueError(f"tokens must be {names} or positions for each row, got {tokens!r}")
        return tokens
    given = tokens.tolist() if hasattr(tokens, "tolist") else tokens
    if not isinstance(given, Sequence) or len(given) != len(chats):
        found = f"{len(given)} entries" if isinstance(given, Sequence) else repr(tokens)
        raise ValueError(f"tokens must have one entry for each of the {len(chats)} rows, got {found}")
    positions = []
    for row, (entry, length) in enumerate(zip(given, chats.lengths)):
        listed = entry if isinstance(entry, Sequence) and not isinstance(entry, str) else [entry]
        name = f"tokens of row {row} ({length} tokens)"
        positions.append(sorted({whole(name, position, 0, length - 1) for position in listed}))
    return positions


def read_mask(batch: Batch, tokens: str | list[list[int]]) -> Bool[Tensor, "batch time"]:
    """Return which tokens of `batch` are read, for `tokens` from `where_to_read`. Padding never is."""
    real = batch.attention_mask.bool()
    if tokens == "all":
        return real
    if tokens == "answer":
        return real & batch.answer
    mask = torch.zeros_like(real)
    if tokens == "last_prompt":
        mask[:, :-1] = batch.answer[:, 1:] & ~batch.answer[:, :-1]
        return real & mask
    for line, row in enumerate(batch.index):
        mask[line, tokens[row]] = True
    return real & mask


def key_of_place(tokens: Tokens, chats: Chats) -> dict[str, Any]:
    """Return what `tokens` adds to the key of a stored result: a name, or "given" with the positions."""
    place = where_to_read(tokens, chats)
    return {"tokens": place} if isinstance(place, str) else {"tokens": "given", "at": place}
