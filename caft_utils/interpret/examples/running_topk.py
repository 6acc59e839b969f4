"""Keep the n best windows of every feature in a stream of text.

Each row is first reduced to one score for every feature. After the first blocks, few scores exceed the n-th
best so far. The peak and the activations around it are gathered only for these. The cost is therefore about
one comparison per value.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caft_utils.interpret.examples.streaming import Spans
from caft_utils.interpret.examples.text_window import WindowRef


class RunningTopK:
    """The n windows of highest score for each of k features. Ties go to the lower row.

    The result does not depend on the order of the rows.

    Args:
        width: tokens in a window. sign: 1 where the peak is the highest value, -1 where it is the lowest.
    """

    def __init__(self, k: int, n: int, width: int, sign: int = 1):
        self.n, self.width, self.sign = n, width, sign
        self._score = torch.full((k, n), -torch.inf)  # -inf: no window yet
        self._row = torch.zeros(k, n, dtype=torch.long)
        self._span = torch.zeros(k, n, 3, dtype=torch.int)  # positions of the peak, the first token, the end
        self._activations = torch.zeros(k, n, width)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], sign: int = 1) -> RunningTopK:
        """Restore the windows from their `tensors`."""
        k, n, width = tensors["activations"].shape
        best = cls(k, n, width, sign)
        best._score, best._row = tensors["score"], tensors["row"]
        best._span, best._activations = tensors["span"], tensors["activations"]
        return best

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The windows found so far as tensors, from which `of` restores them."""
        windows = {"span": self._span, "activations": self._activations}
        return {"score": self._score, "row": self._row, **windows}

    def offer(
        self, columns: slice, values: Float[Tensor, "n c"], score: Float[Tensor, "m c"], spans: Spans
    ) -> None:
        """Keep the candidates among m windows that are among the n best so far.

        Args:
            values: values of the features `columns` at the tokens of the block that `spans` refers to.
            score: score of each span and feature, -inf where it is not a candidate.
        """
        self._move(values.device)
        reaches = ((score >= self._score[columns].amin(1)) & (score > -torch.inf)).any(0)
        column = reaches.nonzero().flatten()
        if not len(column):
            return
        feature = column + columns.start
        row = spans.row.to(values.device).expand(len(column), -1)
        scores = torch.cat([self._score[feature], score[:, column].T], 1)
        rows = torch.cat([self._row[feature], row], 1)
        best = _best(scores, rows, self.n)
        self._score[feature], self._row[feature] = scores.gather(1, best), rows.gather(1, best)

        kept = best.clamp(max=self.n - 1)
        self._span[feature] = _at(self._span[feature], kept)
        self._activations[feature] = _at(self._activations[feature], kept)
        entry, slot = ((best >= self.n) & (self._score[feature] > -torch.inf)).nonzero(as_tuple=True)
        window = self._windows(column[entry], values, spans, best[entry, slot] - self.n)
        self._span[feature[entry], slot], self._activations[feature[entry], slot] = window

    def windows(self, feature: int) -> list[WindowRef]:
        """Return the best windows of a feature, best first."""
        scores, rows = self._score[feature].tolist(), self._row[feature].tolist()
        spans, activations = self._span[feature].tolist(), self._activations[feature].tolist()
        entries = sorted(zip(scores, rows, spans, activations), key=lambda entry: (-entry[0], *entry[1:3]))
        return [
            WindowRef(row, peak, start, values[: stop - start])
            for score, row, (peak, start, stop), values in entries
            if score > -torch.inf
        ]

    def _move(self, device: torch.device) -> None:
        self._score, self._row = self._score.to(device), self._row.to(device)
        self._span, self._activations = self._span.to(device), self._activations.to(device)

    def _windows(
        self, column: Int[Tensor, " w"], values: Float[Tensor, "n c"], spans: Spans, place: Int[Tensor, " w"]
    ) -> tuple[Int[Tensor, "w 3"], Float[Tensor, "w width"]]:
        """Return positions and activations of w windows, of feature column[i] in span place[i]."""
        device = values.device
        peak_range, window_range, row_start = (
            t.to(device)[place] for t in (spans.peak, spans.window, spans.row_start)
        )
        # The peak search uses a view of all runs of tokens of one length, which is many times faster than
        # token by token. Shorter spans are masked.
        length = int((spans.peak[:, 1] - spans.peak[:, 0]).max())
        base = peak_range[:, :1].clamp(max=len(values) - length)
        tokens = base + torch.arange(length, device=device)
        outside = (tokens < peak_range[:, :1]) | (tokens >= peak_range[:, 1:])
        runs = values.unfold(0, length, 1)[base[:, 0], column]
        runs.masked_fill_(outside, -self.sign * torch.inf)
        peak = base[:, 0] + (runs.argmax(1) if self.sign > 0 else runs.argmin(1))
        low, high = window_range.T
        start = torch.maximum(torch.minimum(peak - self.width // 2, high - self.width), low)
        stop = torch.minimum(start + self.width, high)
        tokens = torch.minimum(start[:, None] + torch.arange(self.width, device=device), high[:, None] - 1)
        span = torch.stack([peak, start, stop], 1) - row_start[:, None]
        return span.int(), values[tokens, column[:, None]]


def scores_where(allowed: Bool[Tensor, "m c"], score: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
    """Return the score where `allowed`, and -inf elsewhere."""
    return torch.where(allowed, score, -torch.inf)


def _best(score: Float[Tensor, "f m"], row: Int[Tensor, "f m"], n: int) -> Int[Tensor, "f n"]:
    """Return the places of the n highest scores in each line; ties go to lower rows."""
    values, place = score.topk(n + 1, 1)  # picks any of several equal scores
    best = place[:, :n]
    tied = ((values[:, n - 1] == values[:, n]) & (values[:, n] > -torch.inf)).nonzero().flatten()
    if len(tied):
        by_row = row[tied].argsort(dim=1, stable=True)
        by_score = score[tied].gather(1, by_row).argsort(dim=1, descending=True, stable=True)
        best[tied] = by_row.gather(1, by_score[:, :n])
    return best


def _at(entries: Tensor, place: Int[Tensor, "f n"]) -> Tensor:
    """Return entries[i, place[i, j]] at [i, j]."""
    return entries.gather(1, place[..., None].expand(-1, -1, entries.shape[-1]))
