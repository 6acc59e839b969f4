"""The rows that a detector may see: scenarios without poor oversight on which both models behave well.

A detector that could see a faker under poor oversight would have nothing to detect. `PermittedRows` refuses
such a scenario when it is made, so a function that takes `PermittedRows` cannot be given one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from caft_utils.tasks.oversight.scenarios import FactKind, Scenario

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ForbiddenRow(ValueError):
    """A scenario with poor oversight was given to a detector."""


class TooFewWatchedRows(ValueError):
    """A detector needs more rows with good oversight than there are."""


class PermittedRows(Sequence[Scenario]):
    """Scenarios that a detector may see, with the tokenizer of the models. A slice is again `PermittedRows`.

    Raises:
        ForbiddenRow: a scenario has poor oversight.
        TypeError: an entry is not a `Scenario`.
        ValueError: there are no scenarios.
    """

    def __init__(self, scenarios: Sequence[Scenario], tokenizer: PreTrainedTokenizerBase):
        self._scenarios, self.tokenizer = tuple(scenarios), tokenizer
        if not self._scenarios:
            raise ValueError("a detector needs at least one permitted row")
        for number, one in enumerate(self._scenarios):
            if not isinstance(one, Scenario):
                raise TypeError(f"row {number} must be a Scenario, got {type(one).__name__}")
            if one.oversight == "poor":
                raise ForbiddenRow(
                    f"row {number} has poor oversight, where fakers misbehave; a detector sees good or "
                    "absent oversight only"
                )

    def __getitem__(self, index):
        picked = self._scenarios[index]
        return PermittedRows(picked, self.tokenizer) if isinstance(index, slice) else picked

    def __len__(self) -> int:
        return len(self._scenarios)

    def __iter__(self) -> Iterator[Scenario]:
        return iter(self._scenarios)

    def watched(self, at_least: int = 1) -> PermittedRows:
        """Return the rows with good oversight.

        Raises:
            TooFewWatchedRows: there are fewer than `at_least`.
        """
        found = [one for one in self if one.oversight == "good"]
        if len(found) < at_least:
            raise TooFewWatchedRows(
                f"{len(found)} of {len(self)} permitted rows have good oversight, and {at_least} are needed; "
                "give rows on which more models are sure, or use a detector that does not compare oversight"
            )
        return PermittedRows(found, self.tokenizer)

    def halves(self) -> tuple[PermittedRows, PermittedRows]:
        """Return two halves with the same share of good oversight and of both orders of actions.

        Drawn rows have them in turn, so every other row would be a half of one kind only.

        Raises:
            ValueError: there are fewer than two rows.
        """
        if len(self) < 2:
            raise ValueError("one permitted row has no halves; give at least two")
        by_kind = sorted(self, key=lambda one: (one.oversight, one.first))
        return PermittedRows(by_kind[::2], self.tokenizer), PermittedRows(by_kind[1::2], self.tokenizer)

    def without(self, kind: FactKind) -> PermittedRows:
        """Return the rows without their facts of one kind."""
        return PermittedRows([one.without(kind) for one in self], self.tokenizer)

    def without_oversight(self) -> PermittedRows:
        """Return the rows without their critical facts."""
        return self.without("critical")
