"""Detect questions that are both in training and in a held-out split, which would inflate a measurement.

Two texts are the same if they differ only in case and white space. Two items are the same if they have the
same question and the same right answer, or the same question and the same two options in any order. If the
library makes the splits, a shared item is an error. If the caller makes them, or if published chats repeat
prompts, a warning lists the rows.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caft_utils.chats import Chats

SHOWN = 5  # number of rows that a message lists


def normalised_text(text: str) -> str:
    """Return a text in a form in which equal questions are equal: lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def refuse_shared_items(splits: Mapping[str, Sequence[Any]], what: str) -> None:
    """Raise a ValueError if two splits, {name: items}, hold the same item. `what` describes the items."""
    if found := _shared_items(splits, what):
        raise ValueError(f"{found}; leave one of the two out")


def warn_of_shared_items(splits: Mapping[str, Sequence[Any]], what: str) -> None:
    """Warn if two splits, {name: items}, hold the same item. `what` describes the items."""
    if found := _shared_items(splits, what):
        warnings.warn(f"{found}; leave one of the two out", stacklevel=3)


def refuse_repeated(texts: Iterable[tuple[str, str]]) -> None:
    """Raise a ValueError if two (where, text) pairs have the same text, which could end up in two splits."""
    seen: dict[str, str] = {}
    for where, text in texts:
        if (before := seen.setdefault(normalised_text(text), where)) is not where:
            raise ValueError(f"{where}: the same text as {before}; leave one of them out")


def warn_of_shared_prompts(train: Chats, held_out: Mapping[str, Sequence[Any]], *, name: str) -> None:
    """Warn of held-out conversations that have the same prompt as a training row.

    Args:
        held_out: {description: conversations up to the assistant's last turn, or rows of `Chats`}.
        name: the name of the task in the message.
    """
    rows: dict[tuple, int] = {}
    for number, row in enumerate(train.rows):
        if asked := _prompt(row):
            rows.setdefault(asked, number)
    for what, conversations in held_out.items():
        pairs = [
            (rows[asked], number)
            for number, one in enumerate(conversations)
            if (asked := _prompt(one)) and asked in rows
        ]
        if pairs:
            listed = ", ".join(f"{number} (row {row} of training)" for row, number in pairs[:SHOWN])
            more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
            warnings.warn(
                f"{name}: {what} {listed}{more} have the same prompt as training rows of {train.source}, so "
                "the model has seen them; leave them out of one of the two",
                stacklevel=4,
            )


def _shared_items(splits: Mapping[str, Sequence[Any]], what: str) -> str | None:
    """Return a message with the first item that two splits share and the number of others, or None."""
    first_at = {name: _positions(items) for name, items in splits.items()}
    for one, other in combinations(splits, 2):
        theirs = first_at[other]
        shared = {theirs[key]: place for key, place in first_at[one].items() if key in theirs}
        if shared:
            again, place = next(iter(shared.items()))
            return (
                f"{what}: item {place} of split {one!r} is item {again} of split {other!r} as well "
                f"({splits[one][place].question!r}; {len(shared)} in all), so a model would be asked a "
                "question that it was trained on"
            )
    return None


def _positions(items: Sequence[Any]) -> dict[tuple, int]:
    positions: dict[tuple, int] = {}
    for number, item in enumerate(items):
        question, right, wrong = map(normalised_text, (item.question, item.correct, item.incorrect))
        positions.setdefault((question, right), number)
        positions.setdefault((question, frozenset((right, wrong))), number)
    return positions


def _prompt(row: Any) -> tuple | None:
    """Return the part of a conversation before the last answer, for comparisons; None for plain text."""
    messages = row.get("messages") if isinstance(row, Mapping) else row
    if not messages:
        return None
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    asked = messages[: answers[-1]] if answers and answers[-1] == len(messages) - 1 else messages
    return tuple((message["role"], normalised_text(message["content"])) for message in asked) or None
