"""Focus instructions: which feature of an input decides the answer, the core one or the spurious one.

    type                        answer asked for
    empty                       y, the label of the core feature C
    focus(C)                    y
    ignore(S)                   y
    focus(C) and ignore(S)      y
    focus(S)                    y_s, the label that goes with the value of the spurious feature S
    focus(S) and ignore(C)      y_s

(Focus Instruction Tuning, arXiv 2410.22944, section 3.) Each type has several wordings. Training uses some of
them and tests use the others.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from caft_utils.arguments import texts
from caft_utils.store import digest

if TYPE_CHECKING:
    from caft_utils.tasks.focus.examples import FocusExample

FocusType = Literal[
    "empty", "focus(C)", "ignore(S)", "focus(C) and ignore(S)", "focus(S)", "focus(S) and ignore(C)"
]
TYPES: tuple[FocusType, ...] = get_args(FocusType)
CORE_TYPES: tuple[FocusType, ...] = TYPES[:4]
SPURIOUS_TYPES: tuple[FocusType, ...] = TYPES[4:]
# {attend} is the feature to follow, {leave} the one to disregard
# A wording has one of three openings ("please", "now" or none) and one verb or two. Tests use other
# combinations than training, of the same words, so that a model without any English can know each word of a
# test. No training wording begins with the opening and verb of a test of one verb, not even one with two
# verbs. Training needs many combinations: with five of one verb and four of two, one classroom model in eight
# misread a new one.
FOCUS = {
    "train": (
        "focus on {attend}.",
        "look at {attend}.",
        "decide by {attend}.",
        "please look at {attend}.",
        "now focus on {attend}.",
        "now decide by {attend}.",
    ),
    "test": ("please focus on {attend}.", "now look at {attend}.", "please decide by {attend}."),
}
IGNORE = {
    "train": (
        "ignore {leave}.",
        "skip {leave}.",
        "forget {leave}.",
        "please skip {leave}.",
        "now ignore {leave}.",
        "now forget {leave}.",
    ),
    "test": ("please ignore {leave}.", "now skip {leave}.", "please forget {leave}."),
}
BOTH = {
    "train": (
        "focus on {attend}, ignore {leave}.",
        "focus on {attend}, forget {leave}.",
        "look at {attend}, skip {leave}.",
        "look at {attend}, ignore {leave}.",
        "decide by {attend}, forget {leave}.",
        "please look at {attend}, forget {leave}.",
        "now focus on {attend}, ignore {leave}.",
        "now decide by {attend}, skip {leave}.",
        "ignore {leave}, focus on {attend}.",
        "skip {leave}, look at {attend}.",
        "forget {leave}, decide by {attend}.",
        "please skip {leave}, focus on {attend}.",
        "please skip {leave}, decide by {attend}.",
        "now ignore {leave}, look at {attend}.",
        "now ignore {leave}, decide by {attend}.",
        "now forget {leave}, focus on {attend}.",
    ),
    "test": (
        "please focus on {attend}, skip {leave}.",
        "now decide by {attend}, ignore {leave}.",
        "forget {leave}, look at {attend}.",
    ),
}
Part = Literal["train", "test"]


@dataclass(frozen=True)
class FocusWording:
    """The wordings of the instructions, {"train": templates, "test": templates} for each kind.

    A template has {attend} where the feature to follow stands, and {leave} for the one to disregard.

    Raises:
        ValueError: a kind lacks wordings for training or tests, uses one in both, or a template lacks a slot.
    """

    focus: Mapping[str, tuple[str, ...]]
    ignore: Mapping[str, tuple[str, ...]]
    both: Mapping[str, tuple[str, ...]]

    def __post_init__(self):
        slots = {"focus": ("{attend}",), "ignore": ("{leave}",), "both": ("{attend}", "{leave}")}
        for kind, needed in slots.items():
            by_part = getattr(self, kind)
            for part in get_args(Part):
                for template in texts(f"the wordings of {kind!r}, {part}", by_part.get(part, ())):
                    if missing := [slot for slot in needed if slot not in template]:
                        raise ValueError(f"wording {template!r} of {kind!r} lacks {', '.join(missing)}")
            if shared := set(by_part["train"]) & set(by_part["test"]):
                raise ValueError(f"wordings of training and test are the same for {kind!r}: {sorted(shared)}")

    @property
    def fingerprint(self) -> str:
        """A digest of all wordings, for keys of stored results."""
        return digest([dict(one) for one in (self.focus, self.ignore, self.both)])

    def templates(self, kind: FocusType, part: Part) -> tuple[str, ...]:
        """Return the templates of a type; the empty instruction is one empty text."""
        if kind not in TYPES:
            raise ValueError(f"unknown focus type {kind!r}; expected one of {', '.join(TYPES)}")
        if kind == "empty":
            return ("",)
        return (self.both if " and " in kind else self.ignore if kind == "ignore(S)" else self.focus)[part]

    def instruction(self, kind: FocusType, example: FocusExample, part: Part, rng: random.Random) -> str:
        """Return an instruction of a type for an example, in a wording drawn at random."""
        names = (example.core, example.spurious)
        attend, leave = names[::-1] if kind in SPURIOUS_TYPES else names
        return rng.choice(self.templates(kind, part)).format(attend=attend, leave=leave)


WORDING = FocusWording(FOCUS, IGNORE, BOTH)


def focus_label(kind: FocusType, example: FocusExample) -> str:
    """Return y_focus, the answer that an instruction of this type asks for."""
    if kind not in TYPES:
        raise ValueError(f"unknown focus type {kind!r}; expected one of {', '.join(TYPES)}")
    return example.spurious_label if kind in SPURIOUS_TYPES else example.label
