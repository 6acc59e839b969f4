"""Surprisal: a language model reads a window more easily if a right explanation stands before it.

For a window x and an explanation z, the drop of the loss against a dummy z0 that says nothing,

    drop(x) = loss(x | z0) - loss(x | z)      (nats per token of x)

should be larger where the direction is active; the score is the AUROC of that. (arXiv 2410.13928, section
3.3.) What stands before the windows is read once, and each batch of them goes on from a copy of its keys and
values: a cache that is reused itself grows with each batch, and later windows are read after earlier ones.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.interpret.examples.max_activating import TextWindow

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

QUOTES = re.compile('["“”«»`]')
PREFIX = "{explanation}\n\n"
DUMMY = "various unrelated sentences"


def loss_drops(
    explanation: str,
    windows: Sequence[TextWindow],
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
    windows: Sequence[TextWindow],
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
    kept = sorted((i for i, ids in enumerate(own) if ids), key=lambda i: len(own[i]))  # alike ones together
    if not kept:
        return found
    read, first = _read(start, model)
    for some in (kept[at : at + batch_size] for at in range(0, len(kept), batch_size)):
        # Padding on the right: nothing that counts comes after it.
        ids = nn.utils.rnn.pad_sequence([torch.tensor(own[i]) for i in some], batch_first=True)
        ids, past = ids.to(model.device), copy.deepcopy(read)
        past.batch_repeat_interleave(len(some))
        with torch.no_grad():
            logits = model(input_ids=ids, past_key_values=past, use_cache=True).logits[:, :-1].float()
        logits = torch.cat([first.expand(len(some), 1, -1), logits], 1)
        each = nn.functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none").cpu()
        for row, i in zip(each, some):
            found[i] = row[: len(own[i])].mean()
    return found


@torch.no_grad()
def _read(ids: Sequence[int], model: PreTrainedModel) -> tuple[DynamicCache, Float[Tensor, "1 1 vocabulary"]]:
    """Keys and values of some tokens, and the logits of what comes after them."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config.get_text_config())
    given = torch.tensor([list(ids)], device=model.device)
    out = model(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache, out.logits[:, -1:].float()
