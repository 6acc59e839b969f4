"""Surprisal: a language model reads a window more easily if a right explanation stands before it.

For a window x and an explanation z, the drop of the loss against a dummy z0 that says nothing,

    drop(x) = loss(x | z0) - loss(x | z)      (nats per token of x)

should be larger where the direction is active; the score is the AUROC of that. (arXiv 2410.13928, section
3.3.) Every window is read by a forward pass of its own, without a cache of keys and values: one that is
reused grows with each batch, and later windows would be read after earlier ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.interpret.evidence.windows import Window
from caft_utils.interpret.score.judges_of_windows import left_padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

QUOTES = re.compile('["“”«»`]')
PREFIX = "{explanation}\n\n"
DUMMY = "various unrelated sentences"


def loss_drops(
    explanation: str,
    windows: Sequence[Window],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    dummy: str = DUMMY,
    prefix: str = PREFIX,
    batch_size: int = 32,
) -> Float[Tensor, " n"]:
    """How far the explanation lowers the mean loss on each window, in nats per token; NaN for empty windows.

    Args:
        prefix: what stands before a window, with {explanation} in the place of the text.
    """
    # Quotation marks say nothing, and to a model that has seldom read them they cost more than words explain.
    texts = (prefix.replace("{explanation}", QUOTES.sub("", text)) for text in (dummy, explanation))
    without, given = (losses(text, windows, model, tokenizer, batch_size=batch_size) for text in texts)
    return without - given


def losses(
    before: str,
    windows: Sequence[Window],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int = 32,
) -> Float[Tensor, " n"]:
    """Mean loss on the tokens of each window when `before` stands before it, in nats; NaN for empty windows.

    Text is tokenised anew, and `before` by itself, so that the window's tokens are the same after any text.

    Raises:
        ValueError: `before` has no token.
    """
    start = tokenizer(before)["input_ids"]
    if not start:
        raise ValueError("nothing stands before the windows, so their first tokens cannot be predicted")
    own = [tokenizer("".join(w.tokens), add_special_tokens=False)["input_ids"] for w in windows]
    found = torch.full((len(windows),), float("nan"))
    kept = [i for i, ids in enumerate(own) if ids]
    rows = [start + own[i] for i in kept]
    for places, batch in left_padded(rows, tokenizer, batch_size, model.device):
        longest = max(len(own[kept[place]]) for place in places)
        with torch.no_grad():
            logits = model(**batch, logits_to_keep=longest + 1, use_cache=False).logits[:, :-1].float()
        targets = batch["input_ids"][:, -longest:]
        each = nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none").cpu()
        for row, place in zip(each, places):
            i = kept[place]
            found[i] = row[-len(own[i]) :].mean()
    return found
