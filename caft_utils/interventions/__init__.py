"""Interventions on the residual stream, one operator per file, all used through `Intervention.on(model)`.

To add an operator, write a file with a subclass of `Intervention`, export it here, and add one case to
`tests/contracts/test_interventions.py`.
"""

from caft_utils.interventions.ablation import Ablate, ablate
from caft_utils.interventions.affine import edit_affinely
from caft_utils.interventions.base import Intervention
from caft_utils.interventions.erasure import Erase, erase
from caft_utils.interventions.one_way import (
    AblateActivation,
    AblateGradient,
    ablate_activation,
    ablate_gradient,
)
from caft_utils.interventions.steering import Steer, steer

__all__ = [
    "Ablate",
    "AblateActivation",
    "AblateGradient",
    "Erase",
    "Intervention",
    "Steer",
    "ablate",
    "ablate_activation",
    "ablate_gradient",
    "edit_affinely",
    "erase",
    "steer",
]
