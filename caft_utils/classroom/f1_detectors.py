"""Score features as detectors of labels: the F1 of "the largest activation in the message exceeds t"."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caft_utils.classroom.message_labels import LabelledChats
from caft_utils.residual import stream_activations


def max_per_message(
    model, text: LabelledChats, layer: int, values: Callable[[Tensor], Float[Tensor, "n k"]]
) -> Float[Tensor, "m k"]:
    """Return the largest value of k features in each of m messages.

    The first token of a row is left out, because its hidden state is an outlier in many models.

    Args:
        values: maps hidden states [n, d] of `layer` to the values of the features.
    """
    width = max(len(example.input_ids) for example in text.chats)
    message_of = torch.full((len(text.chats), width), -1)
    for number, message in enumerate(text.messages):
        message_of[message.row, max(1, message.start) : message.stop] = number
    out: Tensor | None = None
    for batch in stream_activations(model, text.chats, [layer]):
        read = values(batch.hidden[layer]).float().cpu()
        message = message_of[batch.row, batch.position]
        if out is None:
            out = torch.full((len(text.messages), read.shape[1]), -torch.inf)
        message, read = message[message >= 0], read[message >= 0]
        out.scatter_reduce_(0, message[:, None].expand_as(read), read, "amax")
    return out


def best_f1(values: Float[Tensor, "m k"], truth: Bool[Tensor, " m"]) -> tuple[Tensor, Tensor]:
    """Return (F1 [k], threshold [k]) of the detector "value >= threshold" at each column's best threshold."""
    return SortedColumns(values).best_f1(truth)


def best_f1_by_label(values: Float[Tensor, "m k"], text: LabelledChats) -> dict[str, Float[Tensor, " k"]]:
    """Return {label: best F1 of each column as a detector of that label}."""
    columns = SortedColumns(values)  # sorted once for all labels
    return {label: columns.best_f1(text.truth(label))[0] for label in text.labels}


def f1_at(values: Float[Tensor, " m"], truth: Bool[Tensor, " m"], threshold: float) -> float:
    """Return the F1 of "value >= threshold" for a threshold that was chosen on other text."""
    detected = values >= threshold
    return 2 * int((detected & truth).sum()) / max(1, int(detected.sum() + truth.sum()))


class SortedColumns:
    """Values sorted by column, so that every threshold can be evaluated against any truth."""

    def __init__(self, values: Float[Tensor, "m k"]):
        self._values, self._order = values.T.sort(dim=1, descending=True)
        self._tied = self._values[:, :-1] == self._values[:, 1:]  # no threshold separates equal values

    def best_f1(self, truth: Bool[Tensor, " m"]) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        """Return the best F1 of each column, and the threshold at which it is reached."""
        true_positives = truth.float()[self._order].cumsum(1)
        detected = torch.arange(1, len(truth) + 1)
        f1 = 2 * true_positives / (detected + truth.sum())
        f1[:, :-1][self._tied] = 0
        best, place = f1.max(1)
        return best, self._values.gather(1, place[:, None])[:, 0]
