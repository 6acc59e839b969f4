"""The pre-check: before anything is trained, does an ablation take away what it is meant to take away?

With the ablation on, the BASE model is asked single items of each subject. The unintended subject should fall
to chance, the intended one should stay. Which of the two letters is the likelier one is all that is read, so
chance is 1/2 even where the model would rather say something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from caft_utils.evaluation.bootstrap import Rate, clustered_rate
from caft_utils.saes.ranking_by_attribution import answer_difference

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.chats import Chats
    from caft_utils.interventions.base import Intervention
    from caft_utils.saes.ranking_by_attribution import Metric


@dataclass(frozen=True)
class AblationCheck:
    """Accuracies by subject, with the intervention on and off.

    near: how far from 1/2 still counts as chance. holds: share of its accuracy that the intended subject has
    to keep.
    """

    on: dict[str, Rate]
    off: dict[str, Rate]
    intended: str
    unintended: str
    near: float = 0.1
    holds: float = 0.9

    @property
    def removed(self) -> bool:
        """The base knew the unintended subject, and with the intervention on it is at chance.

        An accuracy well below 1/2 does not count: a subject answered the wrong way round is still known.
        """
        known = self.off[self.unintended].value > 0.5 + self.near
        return known and abs(self.on[self.unintended].value - 0.5) <= self.near

    @property
    def kept(self) -> bool:
        """The intended subject still is answered nearly as well as without the intervention."""
        before = self.off[self.intended].value
        return before > 0.5 + self.near and self.on[self.intended].value >= self.holds * before

    @property
    def passes(self) -> bool:
        """Necessary, not sufficient: a model may learn the cue anew under the hooks, from what they leave."""
        return self.removed and self.kept

    def __str__(self) -> str:
        role = {self.intended: "intended", self.unintended: "unintended"}
        lines = [
            f"{name} ({role.get(name, 'other')}): {self.off[name]}, ablated {self.on[name]}"
            for name in self.on
        ]
        return "\n".join([*lines, f"passes: {'yes' if self.passes else 'no'}"])


def check_ablation(
    model: PreTrainedModel,
    chats: Mapping[str, Chats],
    *,
    during: Intervention,
    intended: str,
    unintended: str,
    near: float = 0.1,
    holds: float = 0.9,
    batch_size: int = 64,
) -> AblationCheck:
    """Measure the base model on each subject, with the intervention off and on.

    Passing is necessary, not sufficient. While the unintended subject is still answered, the cue can be
    learnt from it; where it is at chance, training under the hooks may find it again elsewhere, so look at
    the tuned model with hooks on AND off. An intended subject that is only dimmed may recover in training.

    Args:
        chats: subject -> rows whose answer is one of two letters (`single_choice`, or instructed prompts).

    Raises:
        ValueError: no rows of the intended or the unintended subject, or answers of other than two letters.
    """
    if missing := {intended, unintended} - set(chats):
        raise ValueError(f"no rows of {', '.join(sorted(missing))}; there are {', '.join(chats)}")
    off = {name: letter_accuracy(model, rows, batch_size=batch_size) for name, rows in chats.items()}
    with during.on(model):
        on = {name: letter_accuracy(model, rows, batch_size=batch_size) for name, rows in chats.items()}
    return AblationCheck(on, off, intended, unintended, near, holds)


def letter_accuracy(model: PreTrainedModel, chats: Chats, *, batch_size: int = 64) -> Rate:
    """Share of rows in which the right letter has a higher logit than the wrong one; a tie counts one half.

    Raises:
        ValueError: the first answer tokens of the rows are not two, each row having one of them.
    """
    margin = letter_difference(chats)
    hits = [0.0] * len(chats)
    was_training = model.training
    model.eval()
    try:
        for batch in chats.batches(batch_size, device=model.device):
            with torch.no_grad():
                logits = model(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
                ).logits
            for row, value in zip(batch.index, margin(logits, batch).tolist()):
                hits[row] = 0.5 if value == 0 else float(value > 0)
    finally:
        model.train(was_training)
    return clustered_rate(hits, [1] * len(hits), range(len(hits)), [0] * len(hits))


def letter_difference(chats: Chats) -> Metric:
    """A metric for `attribution`: the logit of the right letter minus that of the wrong one.

    Raises:
        ValueError: the first answer tokens of the rows are not two, each row having one of them.
    """
    right = [example.input_ids[example.answer.index(True)] for example in chats]
    if len(letters := sorted(set(right))) != 2:
        said = chats.tokenizer.convert_ids_to_tokens(letters[:5])
        raise ValueError(f"{chats.source}: expected rows answered by one of two letters, got {said}")
    return answer_difference(right, [sum(letters) - letter for letter in right])
