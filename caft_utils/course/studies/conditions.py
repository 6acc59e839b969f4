"""Conditions of the studies of a real model, and the setting of one task and recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from caft_utils.finetune_config import FinetuneConfig
from caft_utils.store import digest
from caft_utils.tasks import Task
from caft_utils.tasks.task import Method

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.directions import Eraser
    from caft_utils.directions.subspace import Directions

# Fields added after the first cells were stored. A cell's key contains the text of its condition, and these
# fields are in the text only when they are set, so the keys of earlier cells stay valid.
ADDED_LATER: dict[str, Any] = {"operator": "ablate", "rival": None, "value": None, "steps": None}


@dataclass(frozen=True, repr=False)
class Condition:
    """One row of a table: how a model is made and how it is measured.

    Attributes:
        rows: "train", "control" (rows without the concept), or None for the base model.
        during, at_test: names of the directions that are ablated in training and during measurement.
        to: "zero", or the name of the tokens whose mean hidden state in the base model replaces the
            component.
        step, lr: stop at this step; use this learning rate instead of the recipe's.
        operator: the operation along these directions or vectors, a key of `operators.OPERATORS`.
        rival: the alternative training method, a key of `rival_methods.METHODS`.
        value: the setting of the operator or of the rival.
        steps: optimiser steps in place of the recipe's, over which the learning rate falls.
    """

    rows: str | None = "train"
    during: str | None = None
    at_test: str | None = None
    to: str = "zero"
    step: int | None = None
    lr: float | None = None
    operator: str = ADDED_LATER["operator"]
    rival: str | None = ADDED_LATER["rival"]
    value: float | None = ADDED_LATER["value"]
    steps: int | None = ADDED_LATER["steps"]

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = [
            f"{name}={value!r}"
            for name, value in values.items()
            if name not in ADDED_LATER or value != ADDED_LATER[name]
        ]
        return f"Condition({', '.join(shown)})"


@dataclass(frozen=True, eq=False)
class Material:
    """The data that rivals get besides the rows to learn.

    Attributes:
        prompts: sentences that ask for the trait. irrelevant: sentences that have nothing to do with it.
        trait: rows that show the trait and not the task.
        everyday: rows that have nothing to do with either.
        counterexamples: rows that contradict the trait.
    """

    prompts: tuple[str, ...]
    irrelevant: tuple[str, ...]
    trait: Chats
    everyday: Chats
    counterexamples: Chats

    @property
    def fingerprint(self) -> str:
        """The sha256 of all sentences and rows."""
        rows = [chats.fingerprint for chats in (self.trait, self.everyday, self.counterexamples)]
        return digest([self.prompts, self.irrelevant, rows])


@dataclass(frozen=True, eq=False)
class Setting:
    """The shared inputs of all cells of one task and recipe.

    Attributes:
        directions: (name, seed) -> the directions of that name; `seed` matters only for random ones.
        mean: name of tokens -> {layer: [d]}, the base model's mean hidden state over these tokens.
        snapshots: steps at which every plain run saves its weights.
        key: inputs that the directions depend on besides the model, the task and the recipe.
        more_keys: name of directions -> () -> what these depend on besides.
        vectors: (name, seed) -> {layer: [d]}, to steer with, and for affine editing.
        eraser: name of a concept -> its eraser.
        material: () -> the data that rivals get.
        method: how `measure` gets the answers.
    """

    name: str
    model: Any
    task: Task
    config: FinetuneConfig
    directions: Callable[[str, int], Directions]
    mean: Callable[[str], Mapping[int, Any]]
    snapshots: tuple[int, ...] = ()
    key: Any = None
    more_keys: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    vectors: Callable[[str, int], Mapping[int, Any]] | None = None
    eraser: Callable[[str], Eraser] | None = None
    material: Callable[[], Material] | None = None
    method: Method = "logprob"
