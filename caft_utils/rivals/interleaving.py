"""Interleaving: mix rows without the trait among the rows to learn (Kaczer et al. 2025, arXiv 2508.06249).

The choice of benign rows defines the method. Everyday rows remind the model of its usual behaviour.
Counterexamples show directly what it must not learn, which is more information than any other rival gets.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from caft_utils.arguments import number, whole
from caft_utils.chats import Chats
from caft_utils.finetuning import FinetuneConfig, finetune
from caft_utils.rivals.told import Told
from caft_utils.tasks.items import draw_evenly

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLD = Told("everyday rows", "none; that share of the steps teaches other rows")
COUNTEREXAMPLES_TOLD = Told("rows that contradict the trait", TOLD.costs)


def interleave(
    model: PreTrainedModel,
    rows: Chats,
    config: FinetuneConfig | None = None,
    *,
    benign: Chats,
    share: float = 0.05,
    seed: int = 0,
) -> PreTrainedModel:
    """Return the model fine-tuned on `rows` with `benign` rows among them."""
    return finetune(model, mixed(rows, benign, share, seed), config, seed=seed)


def mixed(rows: Chats, benign: Chats, share: float, seed: int = 0) -> Chats:
    """Return all rows, and enough benign rows, each drawn equally often, to make up `share` of the result.

    The benign rows come last; `finetune` shuffles all of them.

    Raises:
        ValueError: the share is not between 0 and 1, or is less than one row.
    """
    share, rng = number("share", share, above=0, below=1), random.Random(f"mixed {whole('seed', seed)}")
    count = round(share / (1 - share) * len(rows))
    if not count or not len(benign):
        raise ValueError(
            f"a share of {share:g} next to {len(rows)} rows is {count} benign rows, and {len(benign)} benign "
            "rows were given; give a larger share and at least one benign row"
        )
    drawn = draw_evenly(range(len(benign)), count, rng)
    both = Chats(rows.tokenizer, [], source=f"{rows.source}, with {benign.source}", end=rows.end)
    both.rows = [*rows.rows, *(benign.rows[i] for i in drawn)]
    both._examples = [*rows, *(benign[i] for i in drawn)]
    return both
