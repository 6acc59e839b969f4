"""Interventions on the residual stream, one operator per file, all used through `Intervention.on(model)`.

To add an operator, write a file with a subclass of `Intervention`, export it here, and add one case to
`tests/contracts/test_interventions.py`.
"""

from caft_utils.interventions.ablation import Ablate, ablate
from caft_utils.interventions.base import Intervention
from caft_utils.interventions.steering import Steer, steer

__all__ = ["Ablate", "Intervention", "Steer", "ablate", "steer"]
