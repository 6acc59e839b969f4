"""Interventions on the residual stream: one file each, all used through `Intervention.on(model)`."""

from caft_utils.interventions.ablation import Ablate, ablate
from caft_utils.interventions.base import Intervention
from caft_utils.interventions.steering import Steer, steer

__all__ = ["Ablate", "Intervention", "Steer", "ablate", "steer"]
