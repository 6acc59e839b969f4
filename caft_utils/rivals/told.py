"""The information that a method gets besides the training rows, and its cost, for comparison tables.

Methods need different information: a sentence that names the trait, labels, or examples of the trait
elsewhere. A table that compares methods must therefore state what each of them was given.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Told:
    """The information that a method gets besides the rows, and its extra cost.

    Attributes:
        needs: the information, as a phrase.
        costs: the passes and runs beyond plain fine-tuning, as a phrase.
    """

    needs: str
    costs: str
