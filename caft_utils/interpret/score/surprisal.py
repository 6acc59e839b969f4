"""Surprisal: does the explanation make activating windows easier to predict for a language model?

For a window x, an explanation z and a dummy z0 without content, the reduction in loss is

    reduction(x) = loss(x | z0) - loss(x | z)      (nats per token of x)

and the score is the AUROC with which it separates activating windows from the others. (arXiv 2410.13928,
section 3.3.)

The prefix is encoded once, and each batch of windows continues from a copy of its keys and values. Without
the copy, the cache would grow with each batch, and later windows would be read after earlier ones.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.arguments import checked
from caft_utils.chats import pad_rows, prompt_ids
from caft_utils.chats.rows import TEXT
from caft_utils.evaluation.scores import Score, auroc_score
from caft_utils.finite import check_finite
from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.score.scorers import Scorer, labelled_windows
from caft_utils.residual import evaluating

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

# No quotation marks: they carry no content, and in a model that has rarely seen them they raise the loss by
# more than an explanation lowers it.
QUOTES = re.compile('["“”«»`]')


@dataclass(frozen=True)
class Surprisal(Scorer):
    """AUROC of how far the explanation reduces the model's mean loss on a window.

    prefix: the text before a window, in a form that the model was trained on. {explanation} is filled in.
    dummy: the explanation without content.
    hard: compare with hard negatives, whose words resemble those of activating windows.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    hard: bool = False
    prefix: str = "{explanation}\n\n"
    dummy: str = "various unrelated sentences"
    batch_size: int = 32

    @property
    def name(self) -> str:
        return "surprisal (hard)" if self.hard else "surprisal"

    def score(self, explanation: str, examples: FeatureExamples) -> Score:
        windows, active = labelled_windows(examples, self.hard)
        without, given = (self._losses(text, windows) for text in (self.dummy, explanation))
        rows = [window.row for window in windows]
        return auroc_score(self.name, (without - given).tolist(), active, rows)

    def _losses(self, explanation: str, windows: Sequence[TextWindow]) -> Float[Tensor, " n"]:
        prefix = self.prefix.replace("{explanation}", QUOTES.sub("", explanation))
        return window_losses(self.model, self.tokenizer, windows, prefix, batch_size=self.batch_size)


@checked
def window_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    windows: Sequence[TextWindow],
    prefix: str,
    *,
    batch_size: int = 32,
) -> Float[Tensor, " n"]:
    """Return the mean loss on the tokens of each window after `prefix`, in nats; NaN for empty windows.

    Windows are tokenised separately from `prefix`, so a window has the same tokens after any prefix.

    Raises:
        ValueError: `prefix` has no token.
        NotFiniteError: the model's losses are NaN or infinite.
    """
    prefix_ids = prompt_ids(tokenizer, [{"role": TEXT, "content": prefix}])
    if not prefix_ids:
        raise ValueError(
            f"the prefix {prefix!r} has no token, so the first token of a window cannot be predicted; "
            "expected text before the windows"
        )
    window_ids = [tokenizer("".join(w.tokens), add_special_tokens=False)["input_ids"] for w in windows]
    losses = torch.full((len(windows),), float("nan"))
    # Batch windows of similar length, to save padding.
    order = sorted((i for i, ids in enumerate(window_ids) if ids), key=lambda i: len(window_ids[i]))
    if not order:
        return losses
    with torch.no_grad(), evaluating(model):
        prefix_cache, first_logits = _encode_prefix(prefix_ids, model)
        for batch in (order[start : start + batch_size] for start in range(0, len(order), batch_size)):
            # Padding on the right comes after all tokens that count.
            ids, _ = pad_rows([window_ids[i] for i in batch], 0, "right")
            ids, cache = ids.to(model.device), copy.deepcopy(prefix_cache)
            cache.batch_repeat_interleave(len(batch))
            logits = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, :-1].float()
            logits = torch.cat([first_logits.expand(len(batch), 1, -1), logits], 1)
            nats = nn.functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none").cpu()
            for row, i in zip(nats, batch):
                losses[i] = row[: len(window_ids[i])].mean()
            check_finite(losses[batch], f"losses of {type(model).__name__}", [f"window {i}" for i in batch])
    return losses


def _encode_prefix(
    ids: Sequence[int], model: PreTrainedModel
) -> tuple[DynamicCache, Float[Tensor, "1 1 vocabulary"]]:
    """Return the keys and values of a prefix, and the logits of the token after it."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config.get_text_config())
    input_ids = torch.tensor([list(ids)], device=model.device)
    output = model(input_ids=input_ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache, output.logits[:, -1:].float()
