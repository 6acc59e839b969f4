"""What a method is told besides the rows to learn, and what it costs, for the tables that compare methods.

Methods differ in what they need to know. A sentence that names the trait, labels, and examples of the trait
elsewhere are different amounts of help, so each rival says what it had.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Told:
    """What a method gets besides the rows, and its extra work.

    Attributes:
        needs: the information, as a phrase.
        costs: the passes and runs beyond plain fine-tuning, as a phrase.
    """

    needs: str
    costs: str
