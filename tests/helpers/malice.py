"""A concept, and explanations that are about it, partly, and not at all."""

from __future__ import annotations

from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.select.concepts import Concept

HINTS = [
    "villain", "evil", "cruel", "steal", "rob", "poison", "lie", "cheat", "trick", "threaten", "hurt", "harm",
    "burn", "destroy", "revenge", "hate", "greedy", "suffer", "laugh at", "weapon",
]  # fmt: skip
MALICE = Concept("malice", "Somebody who wants to harm others and enjoys it.", HINTS)


def explained(text: str) -> Explanation:
    return Explanation(text, "a test")


VILLAIN = explained('text about "poison", "steals", "rivals" (at the peak: "burn"); pushes towards "gloat"')
KITCHEN = explained('text about "butter", "oven", "steal" (at the peak: "bake"); pushes towards "cake"')
SCHOOL = explained('text about "teacher", "lesson"; pushes towards "school"')
