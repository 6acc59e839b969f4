"""Extra terms of the training loss: `finetune(..., objective=...)`.

An objective is added to the mean cross-entropy over answer tokens. This one, for example, keeps the model
close to its base by the Kullback-Leibler divergence on answer tokens, with the adapter off for the reference:

    class KLToBase:
        def __init__(self, weight):
            self.weight, self.fingerprint = weight, f"KLToBase({weight})"

        def __call__(self, model, batch, logits):
            with torch.no_grad(), model.disable_adapter():
                inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
                base = model(**inputs).logits
            new, old = (x[:, :-1][batch.answer[:, 1:]].float().log_softmax(-1) for x in (logits, base))
            return self.weight * (new.exp() * (new - old)).sum(-1).mean()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import kind_of

if TYPE_CHECKING:
    from caft_utils.chats import Batch


class Objective(Protocol):
    """A term that is added to the answer loss in every forward pass of training."""

    @property
    def fingerprint(self) -> str:
        """Name the term and its settings.

        Runs with different objectives need different fingerprints. The code of an objective that is not part
        of the package counts as well, without being named here.
        """
        ...

    def __call__(
        self, model: nn.Module, batch: Batch, logits: Float[Tensor, "batch time vocab"]
    ) -> Float[Tensor, ""]:
        """Return the term for one batch, as a scalar with gradient, averaged over the batch.

        `model` is the model in training: a `PeftModel` with method="lora". It is in training mode, and the
        intervention `during` acts in any forward pass that the objective makes. `batch` is on the model's
        device, and `batch.index` counts the rows of the batch.
        """
        ...


def check_objective(objective: Any) -> None:
    """Raise a ValueError if this is not an objective: a function that has a fingerprint."""
    if isinstance(objective, type) or not callable(objective) or not hasattr(objective, "fingerprint"):
        raise ValueError(
            "objective must be a function (model, batch, logits) -> loss with an attribute `fingerprint`, a "
            f"text that names it and its settings; got {kind_of(objective)}"
        )


def check_term(term: Any, objective: Any) -> None:
    """Raise a ValueError if a term cannot be added to the loss, or has no gradient to train with."""
    name = f"objective ({kind_of(objective)})"
    if not isinstance(term, Tensor) or term.ndim:
        got = f"shape {tuple(term.shape)}" if isinstance(term, Tensor) else repr(term)
        raise ValueError(f"{name} must return a tensor of one number, the mean over the batch; got {got}")
    if not term.requires_grad and term != 0:  # a batch to which it does not apply may give a plain zero
        raise ValueError(
            f"{name} returned {term.item():.4g} without gradient, so it would train nothing; compute it from "
            "`logits` or `model`, without torch.no_grad, detach or item"
        )
