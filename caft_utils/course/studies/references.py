"""Reference runs: the plain fine-tunings whose change is decomposed into directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caft_utils import finetune
from caft_utils.chats import Chats
from caft_utils.course.sharing import shared_results
from caft_utils.finetune_config import FinetuneConfig


def reference_runs(
    model: Any, rows: Chats, config: FinetuneConfig, seeds: Sequence[int], snapshots: Sequence[int] = ()
) -> list[Any]:
    """Return the plain fine-tunings with these seeds. Processes that share the store train different ones."""

    def train(seed: int) -> Any:
        return finetune(model, rows, config, seed=seed, snapshots=snapshots)

    key = {"rows": rows.fingerprint, "recipe": config.key()}
    return list(shared_results(seeds, "reference", key, train).values())
