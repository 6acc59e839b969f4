"""A detector that is told nothing, against which the others stand."""

from __future__ import annotations

import random
from dataclasses import dataclass

from caft_utils.detectors.detector import Detector
from caft_utils.models import fingerprint
from caft_utils.tasks.oversight.permitted import PermittedRows


@dataclass(frozen=True)
class Chance(Detector):
    """Toss a coin for each pair of models; the same pair and seed give the same verdict."""

    seed: int = 0
    name = "told nothing"
    alone = False

    def scores(self, first, second, rows: PermittedRows) -> tuple[float, float]:
        rng = random.Random(f"{self.seed} {fingerprint(first)} {fingerprint(second)}")
        return rng.random(), rng.random()
