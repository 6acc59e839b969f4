"""Embedding: are activating windows more similar to the explanation than other windows?

The score is the AUROC of the cosine of a window's vector with the explanation's. (arXiv 2410.13928, section
3.3.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caft_utils.evaluation.scores import Score, auroc_score
from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.score.encoders import Encoder, TfIdfEncoder
from caft_utils.interpret.score.scorers import Scorer, labelled_windows
from caft_utils.interpret.words import MARKUP


@dataclass(frozen=True)
class Embedding(Scorer):
    """AUROC of the cosine similarity of windows with the explanation.

    encoder: default TF-IDF, fitted on the windows that are scored.
    hard: compare with hard negatives, whose words resemble those of activating windows.
    """

    encoder: Encoder | None = None
    hard: bool = False

    @property
    def name(self) -> str:
        return "embedding (hard)" if self.hard else "embedding"

    def score(self, explanation: str, examples: FeatureExamples) -> Score:
        windows, active = labelled_windows(examples, self.hard)
        texts = [MARKUP.sub(" ", "".join(window.tokens)) for window in windows]
        if not texts:
            return auroc_score(self.name, [], [], [])
        vectors = np.asarray((self.encoder or TfIdfEncoder(texts))([explanation, *texts]), dtype=float)
        if vectors.ndim != 2 or len(vectors) != len(texts) + 1:
            raise ValueError(
                f"the encoder must return an array [{len(texts) + 1}, d] for as many texts, got "
                f"{list(vectors.shape)}"
            )
        if not np.isfinite(vectors).all():
            bad = np.flatnonzero(~np.isfinite(vectors).all(1)).tolist()
            raise ValueError(f"the encoder returned NaN or inf for texts {bad[:5]} (0: the explanation)")
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        cosines = vectors[1:] @ vectors[0]
        return auroc_score(self.name, cosines.tolist(), active, [window.row for window in windows])
