"""How far a model has moved from the common base, in its hidden states: the simple rival of SAE latents.

    score = mean over rows of   |h_model - h_base| / |h_base|

h is the hidden state at the last token of a row, where the model is about to answer. The detector needs no
autoencoder. Whatever moves a model raises the score, so a longer training looks like a faker.
"""

from __future__ import annotations

from typing import Any

from caft_utils.detectors.detector import Detector
from caft_utils.detectors.reading import last_states
from caft_utils.models import fingerprint
from caft_utils.tasks.oversight.permitted import PermittedRows


class StateDistance(Detector):
    """Take the model whose hidden states have moved farther from the base's for the faker.

    Args:
        base: the model from which both models of a pair were fine-tuned.
        layer: whose states are compared.
    """

    name = "distance of hidden states from the base"

    def __init__(self, base, layer: int):
        self.base, self.layer = base, layer

    def score(self, model, rows: PermittedRows) -> float:
        after, before = (
            last_states(each, rows.tokenizer, rows, [self.layer])[self.layer] for each in (model, self.base)
        )
        return float(((after - before).norm(dim=1) / before.norm(dim=1)).mean())

    @property
    def key(self) -> dict[str, Any]:
        return {**super().key, "base": fingerprint(self.base), "layer": self.layer}
