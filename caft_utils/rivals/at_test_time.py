"""Intervene at test only: fine-tune plainly, then answer under an ablation to the mean or under steering.

Training is unchanged, so the model learns the trait, and the intervention has to stay on permanently. Both
functions return the plain model and the intervention, for `measure(model, task, during=intervention)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from caft_utils.finetuning import FinetuneConfig, finetune
from caft_utils.interventions import Intervention, ablate, steer
from caft_utils.rivals.told import Told

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.chats import Chats
    from caft_utils.directions import Directions

ABLATION_TOLD = Told("the directions that CAFT gets, and the base's mean", "hooks in every answer")
STEERING_TOLD = Told("a vector towards the trait at each layer", "hooks in every answer")


def ablate_at_test(
    model: PreTrainedModel,
    rows: Chats,
    config: FinetuneConfig | None = None,
    *,
    directions: Directions,
    mean: Mapping[int, Float[Tensor, " d"]] | None = None,
    seed: int = 0,
) -> tuple[PreTrainedModel, Intervention]:
    """Return the plain fine-tuning and the ablation of `directions` to `mean`, or to zero without it."""
    return finetune(model, rows, config, seed=seed), ablate(directions, mean=mean)


def steer_at_test(
    model: PreTrainedModel,
    rows: Chats,
    config: FinetuneConfig | None = None,
    *,
    vectors: Mapping[int, Float[Tensor, " d"]],
    strength: float = 1.0,
    seed: int = 0,
) -> tuple[PreTrainedModel, Intervention]:
    """Return the plain fine-tuning and an intervention that subtracts `strength` times each vector."""
    return finetune(model, rows, config, seed=seed), steer(vectors, -strength)
