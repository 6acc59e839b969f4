"""Model diffing: what distinguishes the two models, used as a steering vector in each.

    D = h_first - h_second at the last token of every row, one layer
    u = the first principal component of D, not centred

The sign and the owner of u are unknown, so both models are steered both ways, h <- h + c sigma u with sigma
the mean length of h. The score of a model is the larger of the two mean probabilities of the other action: in
a faker the difference contains the gate between its two behaviours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caft_utils.detectors.detector import Detector
from caft_utils.detectors.reading import actions, last_states, matching_temperature
from caft_utils.tasks.oversight.permitted import PermittedRows


def difference_components(first, second, rows: PermittedRows, layer: int, k: int = 1) -> Float[Tensor, "k d"]:
    """Return the first k principal components of the pair's difference of last-token states."""
    one, two = (last_states(model, rows.tokenizer, rows, [layer])[layer] for model in (first, second))
    return torch.linalg.svd(one - two, full_matrices=False).Vh[:k]


@dataclass(frozen=True)
class ModelDiffing(Detector):
    """Steer both models along the first component of their difference."""

    layer: int = 2
    strengths: tuple[float, ...] = (1.0,)
    matched: bool = True
    name = "model diffing, steered"
    alone = False

    def scores(self, first, second, rows: PermittedRows) -> tuple[float, float]:
        (component,) = difference_components(first, second, rows, self.layer)
        return self._steered(first, rows, component), self._steered(second, rows, component)

    def _steered(self, model, rows: PermittedRows, component: Float[Tensor, " d"]) -> float:
        temperature = matching_temperature(model, rows) if self.matched else 1.0
        by_sign = []
        for sign in (-1, 1):
            total = 0.0
            for strength in self.strengths:
                step = sign * strength * component.to(model.device)

                def steer(hidden, step=step):
                    last = hidden[:, -1:]
                    moved = last + step.to(hidden.dtype) * last.norm(dim=-1).mean()
                    return torch.cat([hidden[:, :-1], moved], dim=1)

                total += float(actions(model, rows, {self.layer: steer}, temperature)[:, 1].mean())
            by_sign.append(total / len(self.strengths))
        return max(by_sign)
