"""Training schedules of the spurious-cue checkpoints: steps, rows, curriculum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from caft_utils.classroom.cues import corpus as cues_corpus
from caft_utils.classroom.pretraining import Schedule


@dataclass(frozen=True, kw_only=True)
class CuesSchedule(Schedule):
    """How the checkpoint `cues` is trained. rows: documents per step."""

    steps: int = 2400
    rows: int = 96
    person_weights: ClassVar[cues_corpus.PersonWeights] = cues_corpus.PERSON_WEIGHTS

    def progress(self, step: int, steps: int) -> float:
        """Return the position in the curriculum at `step`, in 0..1."""
        return step / steps


@dataclass(frozen=True, kw_only=True)
class GenderSchedule(CuesSchedule):
    """How the checkpoint `gender` continues, on the final mixture with items about persons under `quiz:`."""

    steps: int = 150
    lr: float = 1e-3
    warmup_steps: int = 20
    hold: float = 0.3
    seed: int = 3
    person_weights: ClassVar[cues_corpus.PersonWeights] = cues_corpus.GENDER_CHECKPOINT_WEIGHTS

    def progress(self, step: int, steps: int) -> float:
        """Return 1.0, the end of the curriculum."""
        return 1.0
