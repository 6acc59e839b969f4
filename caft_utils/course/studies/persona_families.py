"""The conditions of the classroom's rivals: operators at each place, and families of settings.

`WHY` crosses operators with the places where they act. `exhibit_families` has every family of a task, with
what only the harder task has: four times the steps, and everything at CAFT's own rate and steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from caft_utils.course.studies.conditions import Condition
from caft_utils.course.studies.persona import ADVICE, CODE, EXHIBITS
from caft_utils.course.studies.rival_grids import CAFT_TOLD, NOTHING_TOLD, UNREAD_TOLD, Family, families
from caft_utils.rivals import at_test_time, early_stopping, feature_distance, interleaving
from caft_utils.rivals.told import Told

RATES = (1e-4, 2e-4, 5e-4, 1e-3)
OPERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "zero": ("persona", {}),
    "mean": ("persona", {"to": "all"}),
    "activation only": ("persona", {"operator": "activation only"}),
    "gradient only": ("persona", {"operator": "gradient only"}),
    "random directions": ("random", {}),
    "random directions, activation only": ("random", {"operator": "activation only"}),
    "random directions, gradient only": ("random", {"operator": "gradient only"}),
    "affine": ("trait contrast", {"operator": "affine", "to": "kind", "value": 0.0}),
    "LEACE": ("villain", {"operator": "erase"}),
    "steering toward the trait": ("trait", {"operator": "steer", "value": 1.0}),
    "steering against the trait": ("trait", {"operator": "steer", "value": -1.0}),
}
WHY = {"base": Condition(rows=None), "plain": Condition()} | {
    f"{name}{where}": Condition(rows=rows, **{place: vectors for place in places}, **operator)
    for name, (vectors, operator) in OPERATORS.items()
    for where, rows, places in (
        ("", "train", ("during",)),
        (", hooks on at test", "train", ("during", "at_test")),
        (" at test only", "train", ("at_test",)),
        (" on the base", None, ("at_test",)),
    )
}
UNTUNED: dict[str, tuple[Condition, Told]] = {  # choices of directions and of the place, nothing to tune
    "CAFT, one reference": (Condition(during="one reference"), CAFT_TOLD),
    "top components, unread": (Condition(during="top"), UNREAD_TOLD),
    "components of secure fine-tuning": (Condition(during="secure"), UNREAD_TOLD),
    "mean difference": (Condition(during="mean difference"), UNREAD_TOLD),
    "random directions": (Condition(during="random"), NOTHING_TOLD),
    "ablation to zero at test": (Condition(at_test="persona"), at_test_time.ABLATION_TOLD),
    "ablation to the mean at test": (Condition(at_test="persona", to="all"), at_test_time.ABLATION_TOLD),
}
WORDS_TOLD = Told("a list of words for the concept", "reference fine-tunings and autoencoders")
LATENTS_TOLD = Told("latents taken without a reading", "reference fine-tunings and autoencoders")
PERSONAS_TOLD = Told("descriptions of both personas", "hidden states of described speakers")

# What only the harder task has. Its names are those of the record "harder".
LONG, LONG_RATES = 320, (1e-4, 2e-4, 5e-4)
CAFT_RATE = 2e-4  # where CAFT scored highest on the task: none of the three reached the rule's bar
AT_CAFT = ", at CAFT's rate and steps"
# One pass at a time, with CAFT's directions and with three components of three layers.
PASSES: dict[str, tuple[Condition, Told]] = {
    "CAFT, to the mean": (Condition(during="persona", to="all"), CAFT_TOLD),
    "CAFT, gradient only": (Condition(during="persona", operator="gradient only"), CAFT_TOLD),
    "CAFT, forward pass only": (Condition(during="persona", operator="activation only"), CAFT_TOLD),
    "top 3 components, gradient only": (Condition(during="top 3", operator="gradient only"), UNREAD_TOLD),
    "top 3 components, forward pass only": (
        Condition(during="top 3", operator="activation only"),
        UNREAD_TOLD,
    ),
}
PASS_CONTROLS: dict[str, tuple[Condition, Told]] = {
    "random directions like the top 3, gradient only": (
        Condition(during="random top 3", operator="gradient only"),
        NOTHING_TOLD,
    ),
    "top 3 components of secure fine-tuning, gradient only": (
        Condition(during="secure top 3", operator="gradient only"),
        UNREAD_TOLD,
    ),
}
CONTROLS: dict[str, tuple[Condition, Told]] = {
    "orthogonal directions of matched variance": (Condition(during="random with variance"), NOTHING_TOLD),
    "true persona direction (labels)": (Condition(during="truth"), PERSONAS_TOLD),
    "top 3 components, unread": (Condition(during="top 3"), UNREAD_TOLD),
}
HARDER_UNTUNED: dict[str, tuple[Condition, Told]] = {
    **PASSES,
    **CONTROLS,
    "components called persona at any confidence": (Condition(during="any confidence"), CAFT_TOLD),
    "components chosen by a program": (Condition(during="automatic components"), WORDS_TOLD),
    "SAE latents chosen by a program": (Condition(during="automatic latents"), WORDS_TOLD),
    "top SAE latents, unread": (Condition(during="top latents"), LATENTS_TOLD),
}
SMALL_STEPS: dict[str, tuple[Condition, Told]] = {  # the best of the other families, at their best value
    "feature distance 10": (Condition(rival="feature distance", value=10.0), feature_distance.TOLD),
    "interleaved counterexamples 0.2": (
        Condition(rival="interleaved counterexamples", value=0.2),
        interleaving.COUNTEREXAMPLES_TOLD,
    ),
    "mean difference": UNTUNED["mean difference"],
    "random directions": UNTUNED["random directions"],
}


def exhibit_families(exhibit: str) -> dict[str, Family]:
    """Return the families of rivals for a task, a key of `EXHIBITS`."""
    every = families("persona", EXHIBITS[exhibit].snapshots, RATES) | _of_one_setting(UNTUNED)
    return every | _harder_families() if exhibit == ADVICE else every


def _harder_families() -> dict[str, Family]:
    """Return what only the harder task has: longer training, CAFT's own schedule, and other directions."""
    longer = {
        "CAFT": (Condition(during="persona"), CAFT_TOLD),
        "plain": (Condition(), early_stopping.TOLD),
        **SMALL_STEPS,
    }
    grids = {
        f"{name}, four times the steps": Family(
            {f"{name}, lr {lr:g}, {LONG} steps": replace(of, lr=lr, steps=LONG) for lr in LONG_RATES}, told
        )
        for name, (of, told) in longer.items()
    }
    at_one_schedule = {
        "plain": (Condition(), NOTHING_TOLD),
        **CONTROLS,
        **SMALL_STEPS,
        **PASSES,
        **PASS_CONTROLS,
    }
    at_caft = {
        f"{name}{AT_CAFT}": (replace(of, lr=CAFT_RATE, steps=LONG), told)
        for name, (of, told) in at_one_schedule.items()
    }
    return grids | _of_one_setting(HARDER_UNTUNED | at_caft)


def _of_one_setting(table: Mapping[str, tuple[Condition, Told]]) -> dict[str, Family]:
    return {name: Family({name: condition}, told) for name, (condition, told) in table.items()}


FAMILIES = exhibit_families(CODE)
