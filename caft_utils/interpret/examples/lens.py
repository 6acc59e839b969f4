"""The logit lens: which tokens a direction promotes and which it suppresses."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.finite import check_finite
from caft_utils.interpret.examples.checks import check_vector_width
from caft_utils.residual import decoder


def logit_lens(
    model: nn.Module, tokenizer, direction: Float[Tensor, " d"], *, k: int = 8
) -> tuple[list[str], list[str]]:
    """Return the k words whose logits a direction raises most, and the k whose logits it lowers most.

    The direction goes through the model's final norm and output head. This measures only its direct effect,
    not what later blocks compute from it. Tokens without printable text are left out.

    Raises:
        ValueError: the direction and the model differ in width.
        NotFiniteError: the logits of the direction are NaN or infinite.
    """
    check_vector_width(model, len(direction))
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    norm, head = decoder(model).norm, inner.get_output_embeddings()
    with torch.no_grad():
        weight = next(norm.parameters())
        logits = head(norm(direction.to(weight.device, weight.dtype)[None]).to(head.weight.device))[0].float()
    check_finite(logits, f"logits of {type(inner).__name__} for a direction")

    def first_words(order: Tensor) -> list[str]:
        words: list[str] = []
        for token in order.tolist():
            word = tokenizer.decode([token]).strip()
            if word and word.isprintable() and "\ufffd" not in word and word not in words:
                words.append(word)
            if len(words) == k:
                break
        return words

    order = logits.argsort(descending=True)
    return first_words(order[: 20 * k]), first_words(order.flip(0)[: 20 * k])
