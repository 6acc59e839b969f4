"""The text of single tokens, as it reads in context."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

CONTEXT = 4  # preceding tokens decoded as well, to recover spaces and whole characters


def token_texts(tokenizer, ids: Sequence[int], start: int, stop: int) -> list[str]:
    """Return the text that each token from `start` to `stop` adds. Joined, these texts are the decoded text.

    SentencePiece tokenizers drop the leading space of a token that is decoded by itself. Where a character is
    made of several byte tokens, the last one shows the character and the others are empty.
    """

    def text(end: int) -> str:
        return tokenizer.decode(ids[anchor:end], clean_up_tokenization_spaces=False)

    anchor = max(0, start - CONTEXT)
    single = [_decode(tokenizer, token) for token in ids[start:stop]]
    if text(start) + "".join(single) == text(stop) and not any("\ufffd" in part for part in single):
        return single  # correct for most tokenizers and texts, and many times faster
    parts, before = [], text(start).rstrip("\ufffd")
    for end in range(start + 1, stop + 1):
        now = text(end)
        complete = now.rstrip("\ufffd") if end < stop else now
        parts.append(complete[len(before) :])
        before = complete if len(complete) > len(before) else before
    return parts


@lru_cache(maxsize=2**16)
def _decode(tokenizer, token: int) -> str:
    return tokenizer.decode([token], clean_up_tokenization_spaces=False)
