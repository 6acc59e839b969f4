"""Check on the base model, before any training, that an ablation removes what it should.

With the ablation on, the BASE model answers single items of each subject. Accuracy on the unintended subject
should fall to chance, and accuracy on the intended one should stay. Only the logits of the two letters are
compared, so chance is 1/2 even if another token is more likely than either letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from caft_utils.arguments import checked
from caft_utils.evaluation.bootstrap import Rate, clustered_rate
from caft_utils.finite import check_finite
from caft_utils.models import fingerprint
from caft_utils.models.positions import check_positions
from caft_utils.residual import evaluating
from caft_utils.saes.ranking_by_attribution import answer_difference
from caft_utils.stored_results import fetch_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.chats import Chats
    from caft_utils.interventions.base import Intervention
    from caft_utils.saes.ranking_by_attribution import Metric
    from caft_utils.store import Store

FORMAT = 1  # increase it when the same key would give different hits


@dataclass(frozen=True)
class AblationCheck:
    """Accuracies by subject, with the intervention off and on.

    chance_tolerance: an accuracy this close to 1/2 counts as chance.
    keep_ratio: share of its accuracy that the intended subject must keep.
    """

    on: dict[str, Rate]
    off: dict[str, Rate]
    intended: str
    unintended: str
    chance_tolerance: float = 0.1
    keep_ratio: float = 0.9

    @property
    def removed(self) -> bool:
        """Whether the base answers the unintended subject above chance, and at chance under the intervention.

        An accuracy well below 1/2 does not count: a model that always picks the wrong letter knows the
        subject.
        """
        above_chance = self.off[self.unintended].value > 0.5 + self.chance_tolerance
        return above_chance and abs(self.on[self.unintended].value - 0.5) <= self.chance_tolerance

    @property
    def kept(self) -> bool:
        """Whether the intended subject keeps at least `keep_ratio` of an accuracy above chance."""
        before = self.off[self.intended].value
        above_chance = before > 0.5 + self.chance_tolerance
        return above_chance and self.on[self.intended].value >= self.keep_ratio * before

    @property
    def passes(self) -> bool:
        """Whether the unintended subject is removed and the intended one kept.

        A screen, neither necessary nor sufficient: training under the hooks may relearn the cue from what is
        left, and it may learn what is intended although the cue can still be read.
        """
        return self.removed and self.kept

    def __str__(self) -> str:
        role = {self.intended: "intended", self.unintended: "unintended"}
        lines = [
            f"{name} ({role.get(name, 'other')}): {self.off[name]}, ablated {self.on[name]}"
            for name in self.on
        ]
        return "\n".join([*lines, f"passes: {'yes' if self.passes else 'no'}"])


@checked
def check_ablation(
    model: PreTrainedModel,
    chats: Mapping[str, Chats],
    *,
    during: Intervention,
    intended: str,
    unintended: str,
    chance_tolerance: float = 0.1,
    keep_ratio: float = 0.9,
    batch_size: int = 64,
    store: Store | None = None,
) -> AblationCheck:
    """Measure the base model on each subject, with the intervention off and on.

    The check is a screen, neither necessary nor sufficient. If the base model still answers the unintended
    subject, fine-tuning can learn the cue from it. If the subject is at chance, training under the hooks may
    find the cue elsewhere, so measure the tuned model with hooks on AND off. An intended subject that the
    ablation only weakens may recover in training.

    Args:
        chats: subject -> rows answered by one of two letters (`single_choice`, or instructed prompts).
        chance_tolerance, keep_ratio: see `AblationCheck`.
        store: where accuracies are cached; default: see `default_store`.

    Raises:
        ValueError: no rows of the intended or the unintended subject, or answers that are not one of two
            letters.
    """
    if missing := {intended, unintended} - set(chats):
        raise ValueError(f"no rows of {', '.join(sorted(missing))}; there are {', '.join(chats)}")
    how = {"batch_size": batch_size, "store": store}
    off = {name: letter_accuracy(model, rows, **how) for name, rows in chats.items()}
    on = {name: letter_accuracy(model, rows, during=during, **how) for name, rows in chats.items()}
    return AblationCheck(on, off, intended, unintended, chance_tolerance, keep_ratio)


@checked
def letter_accuracy(
    model: PreTrainedModel,
    chats: Chats,
    *,
    during: Intervention | None = None,
    batch_size: int = 64,
    store: Store | None = None,
) -> Rate:
    """Return the share of rows whose right letter has a higher logit than the wrong letter. Ties count 1/2.

    Args:
        during: an intervention that is on while the model answers.
        store: where the result is cached; default: see `default_store`.

    Raises:
        ValueError: the rows are not answered by one of two letters.
        NotFiniteError: the model's logits are NaN or infinite.
    """
    margin = letter_difference(chats)
    key = {
        "format": FORMAT,
        "model": fingerprint(model),
        "data": chats.fingerprint,
        "during": during.fingerprint if during is not None else None,
    }

    def compute() -> list[float]:
        with during.on(model) if during is not None else nullcontext():
            return _hits(model, chats, margin, batch_size)

    hits = fetch_json("letter_accuracy", key, compute, models=(model,), store=store)
    return clustered_rate(hits, [1] * len(hits), range(len(hits)), [0] * len(hits))


@torch.no_grad()
def _hits(model: PreTrainedModel, chats: Chats, margin: Metric, batch_size: int) -> list[float]:
    check_positions(model, chats.lengths, chats.source)
    hits = [0.0] * len(chats)
    with evaluating(model):
        for batch in chats.batches(batch_size, device=model.device):
            logits = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
            margins = margin(logits, batch)
            check_finite(margins, f"logits of {type(model).__name__} on {chats.source}", batch.index)
            for row, value in zip(batch.index, margins.tolist()):
                hits[row] = 0.5 if value == 0 else float(value > 0)
    return hits


def letter_difference(chats: Chats) -> Metric:
    """Return a metric for `attribution`: logit of the right letter minus logit of the wrong letter.

    Raises:
        ValueError: the rows are not answered by one of two letters.
    """
    right = [example.input_ids[example.answer.index(True)] for example in chats]
    if len(letters := sorted(set(right))) != 2:
        answers = chats.tokenizer.convert_ids_to_tokens(letters[:5])
        raise ValueError(f"{chats.source}: expected rows answered by one of two letters, got {answers}")
    return answer_difference(right, [sum(letters) - letter for letter in right])
