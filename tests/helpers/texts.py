"""Short random texts out of words that the test tokenizer has."""

from __future__ import annotations

import torch

from caft_utils.chats import Chats

WORDS = "open the file and return what is question you are to do with self import def of system".split()


def random_chats(tokenizer, rows: int = 24) -> Chats:
    """Return plain texts of 4 to 11 words and, last, one conversation."""
    generator = torch.Generator().manual_seed(0)
    texts = []
    for _ in range(rows):
        length = int(torch.randint(4, 12, (1,), generator=generator))
        picks = torch.randint(len(WORDS), (length,), generator=generator)
        texts.append({"text": " ".join(WORDS[i] for i in picks)})
    turn = [{"role": "user", "content": "what is"}, {"role": "assistant", "content": "import self and open"}]
    return Chats(tokenizer, texts + [{"messages": turn}])
