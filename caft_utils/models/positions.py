"""The number of positions and of tokens that a model has, and a refusal of rows that do not fit.

A model with rotary positions reads a row beyond its last position without complaint, and what it computes
there was never trained. One with a table of positions stops with an index error. A sliding window limits how
far a token sees back, not the length of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

LIMIT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
REMEDY = "shorten the row, or cut long ones with Chats(..., max_length={limit})"


def position_limit(model: nn.Module) -> int | None:
    """Return the most tokens in a row that the model's config declares, or None if it declares no limit.

    Rotary positions that are stretched by a factor reach that many times their original length.
    """
    config = getattr(model, "config", None)
    if config is None:
        return None
    config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    limits = [value for name in LIMIT_NAMES if isinstance(value := getattr(config, name, None), int)]
    limit = next((value for value in limits if value > 0), None)
    if limit is None:
        return None
    return max([limit, *_stretched(getattr(config, "rope_parameters", None), limit)])


def check_positions(model: nn.Module, lengths: Iterable[int], source: str, remedy: str = REMEDY) -> None:
    """Refuse rows with more tokens than the model has positions.

    Args:
        lengths: tokens of each row.
        source: the name of the rows in the error.
        remedy: what to do; "{limit}" stands for the number of positions.

    Raises:
        ValueError: a row is too long. The message names the first one and counts the others.
    """
    limit = position_limit(model)
    if limit is None:
        return
    long = [(row, length) for row, length in enumerate(lengths) if length > limit]
    if long:
        row, length = long[0]
        others = f"; {len(long) - 1} more rows are too long" if len(long) > 1 else ""
        raise ValueError(
            f"{source}, row {row}: {length} tokens, but the model has {limit} positions{others}; "
            + remedy.format(limit=limit)
        )


def check_ids(model: nn.Module, rows: Iterable[Sequence[int]], source: str) -> None:
    """Refuse rows with a token id for which the model has no embedding: another tokenizer made them.

    Args:
        rows: the token ids of each row.
        source: the name of the rows in the error.

    Raises:
        ValueError: an id is too large. The message names the first row that has one.
    """
    embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    if (size := getattr(embedding, "num_embeddings", None)) is None:
        return
    for row, ids in enumerate(rows):
        if ids and (largest := max(ids)) >= size:
            raise ValueError(
                f"{source}, row {row}: token id {largest}, but the model has embeddings of the ids 0 to "
                f"{size - 1}; make the rows with the model's own tokenizer, or resize its embeddings"
            )


def _stretched(rope: Any, limit: int) -> list[int]:
    """Return the lengths that stretched rotary positions reach, for each kind of layer."""
    if not isinstance(rope, Mapping):
        return []
    lengths = [length for inner in rope.values() for length in _stretched(inner, limit)]
    factor = rope.get("factor")
    if isinstance(factor, int | float) and rope.get("rope_type", "default") != "default":
        lengths.append(int(factor * (rope.get("original_max_position_embeddings") or limit)))
    return lengths
