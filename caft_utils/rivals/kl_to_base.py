"""KL to the base: a penalty on how far the model's predictions move from those of the base model.

    L  =  answer loss  +  weight * mean over tokens of  KL( p_tuned(. | x_<t) || p_base(. | x_<t) )

The tokens are the answers of the training rows (Kaczer et al. 2025, arXiv 2508.06249) or of other text. On
other text the penalty does not act on the narrow rows (Soligo et al. 2026, arXiv 2602.07852).
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import number, whole
from caft_utils.chats import Batch, Chats
from caft_utils.finetuning import FinetuneConfig, finetune
from caft_utils.losses import answer_logits, float_logits_at, places_of, predicting
from caft_utils.models.fingerprints import fingerprint
from caft_utils.rivals.told import Told

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLD = Told("nothing", "a forward pass of the base in each step")
OTHER_TEXT_TOLD = Told("neutral text", "a forward and backward pass, and one of the base, in each step")


class KLToBase:
    """The penalty, as an `objective` of `finetune`.

    Args:
        base: the model that the run starts from.
        weight: weight of the divergence, which is in nats per token.
        text: rows whose answer tokens are compared; default: the rows of each batch.
        rows: number of rows of `text` that each batch is compared on.

    Raises:
        ValueError: the weight is not positive, or `text` has fewer rows than `rows`.
    """

    def __init__(self, base: PreTrainedModel, weight: float, *, text: Chats | None = None, rows: int = 8):
        self.base, self.weight, self.text = base, float(number("weight", weight, above=0)), text
        self.rows = whole("rows", rows, 1, None if text is None else len(text))
        self.fingerprint = f"KLToBase({self.weight}, base={fingerprint(base)}"
        self.fingerprint += ")" if text is None else f", text={text.fingerprint}, rows={self.rows})"

    def __call__(
        self, model: nn.Module, batch: Batch, logits: Float[Tensor, "batch time vocab"]
    ) -> Float[Tensor, ""]:
        if self.text is not None:
            batch = self._drawn(batch)
            logits = answer_logits(model, batch)
        places = places_of(predicting(batch.answer))
        with torch.no_grad():
            old = float_logits_at(answer_logits(self.base, batch), places).log_softmax(-1)
        new = float_logits_at(logits, places).log_softmax(-1)
        return self.weight * (new.exp() * (new - old)).sum(-1).mean()

    def _drawn(self, batch: Batch) -> Batch:
        """Return rows of the text. They depend only on the batch, so a resumed run draws the same rows."""
        seed = sha256(str(batch.input_ids.tolist()).encode()).digest()[:7]
        generator = torch.Generator().manual_seed(int.from_bytes(seed))
        index = torch.randperm(len(self.text), generator=generator)[: self.rows].tolist()
        device = batch.input_ids.device
        return Batch.of([self.text[i] for i in index], index, self.text.pad, device)


def stay_close_by_kl(
    model: PreTrainedModel,
    rows: Chats,
    config: FinetuneConfig | None = None,
    *,
    weight: float = 0.1,
    text: Chats | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """Return the model fine-tuned on `rows` with a penalty on the divergence from `model`, see `KLToBase`."""
    return finetune(model, rows, config, objective=KLToBase(model, weight, text=text), seed=seed)
