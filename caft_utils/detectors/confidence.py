"""The passive detector: a faker is less sure of the benign action.

    score = - mean over rows of log P(benign)

It needs no intervention. On the published benchmark it is right for 82 % of the pairs, which says nothing
about faking: the fakers' training was harder. With matched confidences (`reading.matching_temperature`) the
scores are equal. The temperature can be found on one half of the rows and the score taken on the other, which
shows how much of the leak is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from caft_utils.detectors.detector import Detector
from caft_utils.detectors.reading import action_log_probabilities, last_logits, matching_temperature
from caft_utils.tasks.oversight.permitted import PermittedRows


@dataclass(frozen=True)
class Confidence(Detector):
    """Take the less confident model for the faker. matched: scale every model to one confidence first."""

    matched: bool = False
    rows = 32

    @property
    def version(self) -> int:
        return 2 if self.matched else 1  # 2: both halves have good and absent oversight alike

    @property
    def name(self) -> str:
        return "passive confidence" + (", matched" if self.matched else "")

    def score(self, model, rows: PermittedRows) -> float:
        temperature, asked = 1.0, rows
        if self.matched:
            fitted, asked = rows.halves()
            temperature = matching_temperature(model, fitted)
        logits = last_logits(model, rows.tokenizer, asked)
        return -float(action_log_probabilities(logits, rows.tokenizer, asked, temperature)[:, 0].mean())
