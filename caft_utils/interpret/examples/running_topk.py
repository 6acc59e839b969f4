"""Reading many directions in one pass over text, in memory that does not grow with the text.

Values of a layer, [tokens, directions], come in parts of a few whole rows and are forgotten after use. What
stays of each direction is its n best windows so far (`Best`) and its histogram (`Bins`). Rows are first
reduced to their maxima; only those above the n-th best so far, few after the first parts, are looked at more
closely, and only then are positions and the values around them gathered. So the cost is the projection itself
and a cheap look at each value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress, count
from operator import ne
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from caft_utils.residual import stream_activations

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.features import Features

BINS = 40
TOKENS = 2048  # tokens in a part, unless a single row has more
AT_ONCE = 2**22  # values computed at once, likewise
BLOCK = 2**20  # values worked on at once: what a processor's cache holds; also bounds temporary tensors
EMPTY = torch.iinfo(torch.int64).min


@dataclass(frozen=True)
class RowBlock:
    """Some whole rows: tokens start[i] to stop[i] are those of row `row[i]`; `hidden` has all of them."""

    layer: int
    hidden: Float[Tensor, "n d"]
    row: Int[Tensor, " rows"]
    start: Int[Tensor, " rows"]
    stop: Int[Tensor, " rows"]

    @torch.no_grad()
    def blocks(self, features: Features) -> Iterator[tuple[slice, Float[Tensor, "n c"]]]:
        """Values of some directions after the others: (which columns, their values).

        Where values are projections, and the readable says on what (`projects_on`), each block is computed
        when it is asked for.
        """
        n, k = len(self.hidden), len(features.indices(self.layer))
        step, values = max(1, BLOCK // n), None
        if (rows := features.projection_rows(self.layer)) is not None:
            rows = rows.to(self.hidden)
        else:
            values = features.values(self.layer, self.hidden).float()
        for first in range(0, k, step):
            columns = slice(first, min(first + step, k))
            yield columns, values[:, columns] if rows is None else self.hidden @ rows[columns].T


def parts(
    model: nn.Module, chats: Chats, features: Features, *, batch_size: int, progress: bool
) -> Iterator[RowBlock]:
    """The hidden states of `chats` at every layer of `readable`, some rows of one layer at a time.

    Raises:
        IndexError: the model lacks a layer. ValueError: no rows, or hidden states that are not finite.
    """
    most = {layer: min(TOKENS, AT_ONCE // len(features.indices(layer))) for layer in features.layers}
    for layer in most:
        if features.projection_rows(layer) is not None:  # values are computed block by block
            most[layer] = TOKENS
    for batch in stream_activations(model, chats, features.layers, batch_size=batch_size, progress=progress):
        edges = [*(batch.position == 0).nonzero().flatten().tolist(), len(batch.row)]
        for layer in most:
            hidden = batch.hidden[layer]
            if not hidden.isfinite().all():
                raise ValueError(
                    f"hidden states at layer {layer} are not finite; did the model overflow (float16)?"
                )
            if hidden.device.type == "mps":  # lacks some of the operations that follow
                hidden = hidden.cpu()
            first = 0
            while first < len(edges) - 1:
                last = first + 1
                while last < len(edges) - 1 and edges[last + 1] - edges[first] <= most[layer]:
                    last += 1
                bounds = torch.tensor(edges[first : last + 1])
                rows, starts = batch.row[bounds[:-1]], bounds - edges[first]
                yield RowBlock(layer, hidden[edges[first] : edges[last]], rows, starts[:-1], starts[1:])
                first = last


def first_new(chats: Chats) -> Int[Tensor, " rows"]:
    """For each row the number of tokens that it begins with and shares with a row that sorts before it."""
    rows = [example.input_ids for example in chats]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    shared = torch.zeros(len(rows), dtype=torch.long)
    for before, row in zip(order, order[1:]):
        a, b = rows[before], rows[row]
        shared[row] = next(compress(count(), map(ne, a, b)), min(len(a), len(b)))
    return shared


@dataclass(frozen=True)
class Spans:
    """What may become a window: the peak is sought among tokens look[0] to look[1] of a part, and the window
    lies within tokens within[0] to within[1]. `start` is where the row begins."""

    row: Int[Tensor, " m"]
    start: Int[Tensor, " m"]
    look: Int[Tensor, "m 2"]
    within: Int[Tensor, "m 2"]

    def where(self, keep: Bool[Tensor, " m"]) -> Spans:
        return Spans(self.row[keep], self.start[keep], self.look[keep], self.within[keep])

    def positions(self) -> list[list[int]]:
        """`look` as positions in the rows."""
        return (self.look - self.start[:, None]).tolist()

    def elsewhere(self, part: RowBlock) -> Int[Tensor, " t"]:
        """Tokens of `part` that are neither looked at nor first in their row."""
        beside = torch.ones(len(part.hidden), dtype=torch.bool)
        beside[part.start] = False
        for first, last in self.look.tolist():
            beside[first:last] = False
        return beside.nonzero().flatten().to(part.hidden.device)

    def highest(self, values: Float[Tensor, "n c"], sign: int = 1) -> Float[Tensor, "m c"]:
        """The largest of sign * values in each `look`, none of which may be empty."""
        spans = [values[a:b] for a, b in self.look.tolist()]
        if not spans:
            return values[:0]
        if sign > 0:
            return torch.stack([span.amax(0) for span in spans])
        return -torch.stack([span.amin(0) for span in spans])


class RunningTopK:
    """For each of k directions the n places of highest score so far, equal scores by row, with their windows.

    sign: -1 looks for the lowest value.
    """

    def __init__(self, k: int, n: int, width: int, sign: int = 1, device: str | torch.device = "cpu"):
        self.n, self.width, self.sign = n, width, sign
        self._key = torch.full((k, n), EMPTY, device=device)
        self._floor = torch.full((k,), -torch.inf, device=device)  # score of the n-th
        # of each window: position of its peak, of its first token, of what lies behind its last
        self._span = torch.zeros(k, n, 3, dtype=torch.int32, device=device)
        self._values = torch.zeros(k, n, width, device=device)

    def offer(
        self, columns: slice, values: Float[Tensor, "n c"], score: Float[Tensor, "m c"], places: Spans
    ) -> None:
        """Take what is among the best. A score of -inf is no candidate.

        values: of the directions `columns`, at the tokens that `places` points to.
        """
        hopeful = ((score >= self._floor[columns]) & (score > -torch.inf)).any(0).nonzero().flatten()
        if not len(hopeful):
            return
        at, device = hopeful + columns.start, values.device
        row, look, within = (t.to(device) for t in (places.row, places.look, places.within))
        offered = _key(score[:, hopeful].T, row)
        keys = torch.cat([self._key[at], offered], 1)
        best, source = keys.topk(self.n, 1)
        self._floor[at] = _score(best[:, -1])
        # What stays keeps its slot; what is new takes the slots of what leaves, of which there are as many.
        stays = torch.zeros_like(keys, dtype=torch.bool).scatter_(1, source, True)
        entry, place = stays[:, self.n :].nonzero(as_tuple=True)
        slot = (~stays[:, : self.n]).nonzero(as_tuple=True)[1]
        real = (offered[entry, place] > EMPTY).nonzero().flatten()
        entry, place, slot = entry[real], place[real], slot[real]

        # Runs of tokens are taken through a view of all of them, many times faster than token by token.
        column, reach = hopeful[entry], int((look[:, 1] - look[:, 0]).max())
        base = look[:, :1].clamp(max=len(values) - reach)
        tokens = base + torch.arange(reach, device=device)
        beside = (tokens < look[:, :1]) | (tokens >= look[:, 1:])
        seen = values.unfold(0, reach, 1)[base[place, 0], column]
        seen.masked_fill_(beside[place], -self.sign * torch.inf)
        peak = base[place, 0] + (seen.argmax(1) if self.sign > 0 else seen.argmin(1))
        low, high = within[place].T
        first = torch.maximum(torch.minimum(peak - self.width // 2, high - self.width), low)
        tokens = first[:, None] + torch.arange(self.width, device=device)
        ends = torch.stack([peak, first, torch.minimum(first + self.width, high)], 1)

        where = at[entry], slot
        self._key[where] = offered[entry, place]
        self._span[where] = (ends - places.start.to(device)[place][:, None]).int()
        self._values[where] = values[torch.minimum(tokens, high[:, None] - 1), column[:, None]]

    def entries(self, column: int) -> Iterator[tuple[int, int, int, list[float]]]:
        """(row, position of the peak, position of the window's first token, values), best first."""
        kept = zip(self._key[column].tolist(), self._span[column].tolist(), self._values[column].tolist())
        for key, (peak, first, stop), values in sorted(kept, key=lambda entry: -entry[0]):
            if key > EMPTY:
                yield _LAST - (key & 0xFFFFFFFF), peak, first, values[: stop - first]


def only(allowed: Bool[Tensor, "m c"], score: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
    """The score of a candidate, -inf of others."""
    return torch.where(allowed, score, -torch.inf)


_LAST = 2**31 - 1


def _key(score: Float[Tensor, "m r"], row: Int[Tensor, " r"]) -> Int[Tensor, "m r"]:
    """Integers that sort as (score, -row) do: the bits of the score, made to rise with it, before the row."""
    bits = (score + 0.0).contiguous().view(torch.int32)  # + 0.0: minus zero equals zero
    bits = bits ^ ((bits >> 31) & _LAST)
    return torch.where(score > -torch.inf, (bits.long() << 32) + (_LAST - row), EMPTY)


def _score(key: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """The score in a key; -inf where it is EMPTY."""
    bits = (key >> 32).int()
    bits = bits ^ ((bits >> 31) & _LAST)
    return torch.where(key > EMPTY, bits.view(torch.float32), -torch.inf)


class StreamingHistogram:
    """Histograms of k streams of numbers whose range is not known beforehand.

    Bins cover -edge to edge, a power of two above every magnitude so far. A value that reaches it doubles
    the edge: two old bins then make exactly one new bin, so no count is lost, and each value is in the bin
    that it would be in had the last edge been known from the start. While only zeros were seen edge is 0.
    """

    def __init__(self, k: int, device: str | torch.device = "cpu"):
        self.counts = torch.zeros(k, BINS, dtype=torch.long, device=device)
        self.edge = torch.zeros(k, device=device)

    def add(
        self,
        values: Float[Tensor, "n c"],
        columns: slice = slice(None),
        reach: Float[Tensor, " c"] | None = None,
        without: Int[Tensor, " m"] | None = None,
    ) -> None:
        """Count values of the streams `columns`, but for those at `without`.

        reach: the largest of what is counted, in magnitude, where it is known already.
        """
        if reach is None:
            reach = torch.maximum(values.amax(0), -values.amin(0))
        edge, counts = self.edge[columns], self.counts[columns]
        first = (edge == 0) & (reach > 0)
        edge[first] = 2 ** reach[first].clamp(min=1e-30).log2().ceil()
        while (wide := (reach >= edge) & (edge > 0) & edge.isfinite()).any():
            pairs = counts[wide].view(-1, BINS // 2, 2).sum(-1)
            counts[wide] = nn.functional.pad(pairs, (BINS // 4, BINS // 4))
            edge[wide] *= 2
        # Scale and floor before the shift: to halve a float is exact, to add to it is not.
        scale, bins = torch.where(edge > 0, BINS / 2 / edge, 0), BINS + 1  # one more for what is not counted
        place = (values * scale).floor_().int()
        if without is not None:
            place[without] = BINS // 2
        place += torch.arange(len(edge), device=values.device, dtype=torch.int32) * bins + BINS // 2
        found = place.flatten().bincount(minlength=bins * len(edge)).view(-1, bins)
        counts += found[:, :BINS]
