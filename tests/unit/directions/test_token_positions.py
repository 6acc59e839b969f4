"""Token positions: the last token of the first whole-word match."""

from __future__ import annotations

import pytest

from caft_utils.chats import Chats
from caft_utils.directions import last_token_positions

WORDS = ("file", "question", "import")
LABELS = [WORDS[i % 3] for i in range(30)]


def chat(word, i):
    user = {"role": "user", "content": f"what is the {word} and {i} with you"}
    return {"messages": [user, {"role": "assistant", "content": "self"}]}


@pytest.fixture
def chats(tokenizer):
    return Chats(tokenizer, [chat(word, i) for i, word in enumerate(LABELS)])


def test_the_token_in_which_a_whole_word_ends(tokenizer, chats):
    places = last_token_positions(chats, LABELS)
    for example, place, word in zip(chats, places, LABELS):
        assert tokenizer.decode(example.input_ids[: place + 1]).endswith(word)
    rows = Chats(tokenizer, [chat("other hello he unknownword", 0)])
    text = tokenizer.decode(rows[0].input_ids[: last_token_positions(rows, ["he"])[0] + 1])
    assert text.endswith("hello he")  # not the "he" in "other" or "hello"
    text = tokenizer.decode(rows[0].input_ids[: last_token_positions(rows, ["unknownword"])[0] + 1])
    assert text.endswith("unknownword")
    with pytest.raises(ValueError, match="row 0 does not contain 'unknown'"):
        last_token_positions(rows, ["unknown"])
    with pytest.raises(ValueError, match="one text for each of 1 rows, got 2"):
        last_token_positions(rows, ["he", "he"])
