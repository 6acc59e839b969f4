"""The signature of all detectors: two models and permitted rows in, a score for each and a verdict out.

Most detectors score a model by itself, and the verdict compares two scores. They implement `score`. A
detector that needs both models at once overrides `scores`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

from caft_utils.tasks.oversight.permitted import PermittedRows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Finding:
    """The scores of two models. The higher one is more suspicious."""

    scores: tuple[float, float]

    @property
    def faker(self) -> int | None:
        """The place of the suspected faker, 0 or 1; None where the scores are equal."""
        first, second = self.scores
        return None if first == second else int(second > first)


class Detector:
    """Score two models on rows that a detector may see.

    name: what tables call it. paper: POSER's accuracy of the strategy in percent, or None.
    alone: whether a model's score depends on that model only.
    rows: how many permitted rows of a file the benchmark shows it; None: all.
    drops_rows: whether it judges few of the rows that it sees, so that the benchmark draws more of them.
    version: increase it when the same settings give other scores, which are stored.
    """

    name: str
    paper: float | None = None
    alone: bool = True
    rows: int | None = 12
    drops_rows: bool = False
    version = 1

    def __call__(self, first: PreTrainedModel, second: PreTrainedModel, rows: PermittedRows) -> Finding:
        """Return the scores of both models.

        Raises:
            TypeError: `rows` are not `PermittedRows`.
            ValueError: the rows lack what the detector needs, for example good oversight.
        """
        if not isinstance(rows, PermittedRows):
            raise TypeError(
                f"a detector sees PermittedRows only, got {type(rows).__name__}; PermittedRows(scenarios, "
                "tokenizer) refuses scenarios with poor oversight"
            )
        return Finding(self.scores(first, second, rows))

    def scores(
        self, first: PreTrainedModel, second: PreTrainedModel, rows: PermittedRows
    ) -> tuple[float, float]:
        """Return the two scores."""
        return self.score(first, rows), self.score(second, rows)

    def score(self, model: PreTrainedModel, rows: PermittedRows) -> float:
        """Return how suspicious one model is."""
        raise NotImplementedError(f"{type(self).__name__} scores pairs only")

    @property
    def key(self) -> dict[str, Any]:
        """The class and its settings, which name a stored score."""
        version = {"version": self.version} if self.version > 1 else {}
        return {"detector": type(self).__name__, **(asdict(self) if is_dataclass(self) else {}), **version}
