"""Feature distance (LDIFS): a penalty on how far the hidden states move from those of the base model.

    L  =  answer loss  +  weight * mean over layers l and tokens t of  |h_l,t - h0_l,t|^2 / s_l^2

h0 is the base model's state of the same token and s_l the typical length of its states at the layer, so the
weight has no unit. The original has the sum without s_l (Mukhoti et al. 2024, arXiv 2308.13320; for language
models Kaczer et al. 2025, arXiv 2508.06249, at every fifth layer). Attention sinks are left out, because they
are a hundred times as long as other states and would dominate the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import number, wholes
from caft_utils.chats import Batch, Chats
from caft_utils.finetuning import FinetuneConfig, finetune
from caft_utils.models.fingerprints import fingerprint
from caft_utils.residual import capture, depth, evaluating
from caft_utils.rivals.told import Told
from caft_utils.sinks import PEAK, is_sink, typical_lengths

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLD = Told("nothing", "two forward passes, one of them of the base, and a backward pass in each step")
EVERY = 5  # layers


class FeatureDistance:
    """The penalty, as an `objective` of `finetune`.

    Args:
        base: the model that the run starts from.
        layers: where states are compared; default: the output of every fifth decoder block.

    Raises:
        ValueError: the weight is not positive, or there is no layer.
        IndexError: a layer is out of range.
    """

    def __init__(self, base: PreTrainedModel, weight: float, *, layers: Sequence[int] | None = None):
        self.base, self.weight = base, float(number("weight", weight, above=0))
        every = range(min(EVERY, depth(base)) - 1, depth(base), EVERY)
        self.layers = sorted(set(wholes("layers", every if layers is None else layers, -1)))
        self.fingerprint = f"FeatureDistance({self.weight}, {self.layers}, base={fingerprint(base)})"

    @cached_property
    def typical(self) -> dict[int, float]:
        """The typical length of the base model's states, by layer."""
        return typical_lengths(self.base, self.layers)

    def __call__(
        self, model: nn.Module, batch: Batch, logits: Float[Tensor, "batch time vocab"]
    ) -> Float[Tensor, ""]:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
        with torch.no_grad(), evaluating(self.base), capture(self.base, self.layers) as before:
            self.base(**inputs)
        with capture(model, self.layers) as after:
            model(**inputs)
        distances = []
        for layer in self.layers:
            old, new = before[layer].float(), after[layer].float()
            keep = batch.attention_mask.bool() & ~is_sink(old, PEAK * self.typical[layer])
            squares = (new - old)[keep].square().sum(-1)
            distances.append(squares.mean() / self.typical[layer] ** 2)
        return self.weight * torch.stack(distances).mean()


def stay_close_by_features(
    model: PreTrainedModel,
    rows: Chats,
    config: FinetuneConfig | None = None,
    *,
    weight: float = 1.0,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """Return the model fine-tuned on `rows` with a penalty on the distance of hidden states from the base."""
    return finetune(model, rows, config, objective=FeatureDistance(model, weight, layers=layers), seed=seed)
