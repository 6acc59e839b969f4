"""Stream the values of many features over text, in memory that does not grow with the text.

The values of a layer, [tokens, features], are computed in blocks of a few whole rows and dropped after use.
For each feature only its best windows so far (running_topk.py) and a histogram (histogram.py) are kept.
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
from caft_utils.sinks import Sinks, is_sink, sink_limits

if TYPE_CHECKING:
    from caft_utils.chats import Chats
    from caft_utils.features import Features

# Limits of a block. A single row may exceed the first two.
MAX_TOKENS = 2048
MAX_VALUES = 2**22  # values [tokens, features] that `Features.values` computes at once
# Values processed at once. They fit a processor's cache and limit the size of temporary tensors.
VALUES_PER_STEP = 2**20


@dataclass(frozen=True)
class RowBlock:
    """Hidden states of some whole rows: tokens start[i] to stop[i] of the block belong to row row[i].

    silent: tokens whose values count as zero, because they are attention sinks. None: no such tokens.
    """

    layer: int
    hidden: Float[Tensor, "n d"]
    row: Int[Tensor, " rows"]
    start: Int[Tensor, " rows"]
    stop: Int[Tensor, " rows"]
    silent: Int[Tensor, " s"] | None = None

    @torch.no_grad()
    def values(self, features: Features) -> Iterator[tuple[slice, Float[Tensor, "n c"]]]:
        """Yield (columns, values of these columns), a group of features at a time.

        Projections are computed group by group; other values are computed all at once.
        """
        n, k = len(self.hidden), len(features.indices(self.layer))
        step, values = max(1, VALUES_PER_STEP // n), None
        if (rows := features.projection_rows(self.layer)) is not None:
            rows = rows.to(self.hidden)
        else:
            values = features.values(self.layer, self.hidden).float()
        for first in range(0, k, step):
            columns = slice(first, min(first + step, k))
            some = values[:, columns] if rows is None else self.hidden @ rows[columns].T
            yield columns, some if self.silent is None else some.index_fill(0, self.silent, 0.0)

    def spans(self, shared_prefix: Int[Tensor, " all_rows"], *, with_first: bool) -> Spans:
        """Return the spans of this block in which a peak may lie, for the rows that have one.

        Two kinds of token are never a peak. The first token of a row is an attention sink whose hidden state
        is unlike any other. Tokens of a prefix that another row shares (chat-template headers) have the same
        hidden states in both, and would fill the best n windows with copies of one text.

        Args:
            shared_prefix: length for each row of the chats, see `shared_prefix_lengths`.
            with_first: whether a window may include the first token of its row.
        """
        peak = torch.stack([self.start + shared_prefix[self.row].clamp(min=1), self.stop], 1)
        window = torch.stack([self.start + (0 if with_first else 1), self.stop], 1)
        return Spans(self.row, self.start, peak, window).filter(peak[:, 0] < peak[:, 1])


@dataclass(frozen=True)
class Spans:
    """Spans of a block; at most one window is taken from each.

    row: the row of each span. row_start: the first token of that row in the block.
    peak: the peak lies among tokens peak[0] to peak[1] of the block. window: the window lies within these.
    """

    row: Int[Tensor, " m"]
    row_start: Int[Tensor, " m"]
    peak: Int[Tensor, "m 2"]
    window: Int[Tensor, "m 2"]

    def __len__(self) -> int:
        return len(self.row)

    def filter(self, keep: Bool[Tensor, " m"]) -> Spans:
        return Spans(self.row[keep], self.row_start[keep], self.peak[keep], self.window[keep])

    def tokens_outside(self, block: RowBlock) -> Int[Tensor, " t"]:
        """Return the tokens of `block` that cannot be a peak, without the first token of each row."""
        outside = torch.ones(len(block.hidden), dtype=torch.bool)
        outside[block.start] = False
        for first, stop in self.peak.tolist():
            outside[first:stop] = False
        return outside.nonzero().flatten().to(block.hidden.device)

    def maxima(self, values: Float[Tensor, "n c"], sign: int = 1) -> Float[Tensor, "m c"]:
        """Return the largest sign * value among the possible peaks of each span."""
        parts = [values[first:stop] for first, stop in self.peak.tolist()]
        if not parts:
            return values[:0]
        if sign > 0:
            return torch.stack([part.amax(0) for part in parts])
        return -torch.stack([part.amin(0) for part in parts])


def stream_row_blocks(
    model: nn.Module,
    chats: Chats,
    features: Features,
    *,
    rows: Int[Tensor, " rows"] | None = None,
    sinks: Sinks = "spare",
    batch_size: int,
    progress: bool,
) -> Iterator[RowBlock]:
    """Yield the hidden states of `chats` at every layer of `features`, some rows of one layer at a time.

    Args:
        rows: the rows to read; default: all. `RowBlock.row` always refers to `chats`.
        sinks: "spare" sets attention sinks to zero; "include" keeps their values.

    Raises:
        IndexError: the model lacks a layer. ValueError: no rows, or hidden states that are not finite.
    """
    limits = sink_limits(model, features.layers, sinks)
    max_tokens = {layer: _max_tokens(features, layer) for layer in features.layers}
    some = chats if rows is None else chats.take(rows.tolist())
    for batch in stream_activations(model, some, features.layers, batch_size=batch_size, progress=progress):
        row = batch.row if rows is None else rows[batch.row]
        edges = [*(batch.position == 0).nonzero().flatten().tolist(), len(row)]
        for layer in features.layers:
            hidden = batch.hidden[layer]
            if hidden.device.type == "mps":  # MPS lacks some of the operations that follow
                hidden = hidden.cpu()
            first = 0
            while first < len(edges) - 1:
                last = first + 1
                while last < len(edges) - 1 and edges[last + 1] - edges[first] <= max_tokens[layer]:
                    last += 1
                bounds = torch.tensor(edges[first : last + 1])
                start = bounds - edges[first]
                block = hidden[edges[first] : edges[last]]
                silent = is_sink(block, limits[layer]).nonzero().flatten()
                silent = silent if len(silent) else None
                yield RowBlock(layer, block, row[bounds[:-1]], start[:-1], start[1:], silent)
                first = last


def _max_tokens(features: Features, layer: int) -> int:
    if features.projection_rows(layer) is not None:  # their values are computed group by group
        return MAX_TOKENS
    return min(MAX_TOKENS, MAX_VALUES // len(features.indices(layer)))


def shared_prefix_lengths(chats: Chats) -> Int[Tensor, " rows"]:
    """Return how many leading tokens each row shares with a row that sorts before it."""
    rows = [example.input_ids for example in chats]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    shared = torch.zeros(len(rows), dtype=torch.long)
    for before, row in zip(order, order[1:]):
        a, b = rows[before], rows[row]
        shared[row] = next(compress(count(), map(ne, a, b)), min(len(a), len(b)))
    return shared
