"""Find the token in which a word ends in each row, to read its hidden state."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caft_utils.chats import Chats


def last_token_positions(chats: Chats, texts: Sequence[str]) -> list[int]:
    """Return, for each row i, the position of the token in which the first occurrence of texts[i] ends.

    `class_means` takes the result as `at`. A text is one word or several, and matches whole words only.

    Raises:
        ValueError: the number of texts is not the number of rows, or a row does not contain its text.
    """
    if len(texts) != len(chats):
        raise ValueError(f"expected one text for each of {len(chats)} rows, got {len(texts)}")
    positions = []
    for i, (example, text) in enumerate(zip(chats, texts)):
        ids, decode = example.input_ids, chats.tokenizer.decode
        match = re.search(rf"(?<!\w){re.escape(text)}(?!\w)", decode(ids))
        if not match:
            raise ValueError(f"{chats.source}, row {i} does not contain {text!r} as a whole word")
        token_ends = (len(decode(ids[: n + 1])) for n in range(len(ids)))
        positions.append(next(n for n, end in enumerate(token_ends) if end >= match.end()))
    return positions
