"""Sampling windows of some rows: the strongest of every direction, others that activate, others that do not.

One pass, in memory that does not grow with the text: each kind of window is a running best (streaming.py) by
another score. To sample at random, each row and direction has a ticket, and the n highest tickets stay; which
rows may enter depends on the strongest value, of which the largest so far is known. It only rises, so no
window that activates in the end was refused, and what no longer does is dropped by who reads the sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from caft_utils.chats import Chats
from caft_utils.interpret.examples.running_topk import RunningTopK, Spans, first_new, only, parts

if TYPE_CHECKING:
    from caft_utils.features import Features
    from caft_utils.interpret.examples.hard_negatives import WordSimilarity

ACTIVE_SHARE = 0.3  # share of the strongest value above which a token counts as activating
NON_ACTIVATING_SHARE = (
    0.1  # share of it that no token of a quiet window exceeds; a latent must not fire at all
)
OVERSAMPLING = 5  # windows sampled for each one wanted: what quantiles are made of
SIGNS: Mapping[str, int] = {"+": 1, "-": -1}

Side = tuple[int, str]  # layer, "+" or "-"


class WindowRef(NamedTuple):
    """A window: its row, the positions of its peak and its first token, its values, positive where active."""

    row: int
    position: int
    first: int
    values: list[float]

    @property
    def value(self) -> float:
        return self.values[self.position - self.first]


@dataclass
class ExampleSample:
    """Windows of one layer and side: the strongest, and at random; `hard` are quiet and like given ones."""

    top: RunningTopK
    active: RunningTopK
    quiet: RunningTopK
    hard: RunningTopK

    def found(self, kind: str, column: int) -> list[WindowRef]:
        best: RunningTopK = getattr(self, kind)
        return [
            WindowRef(row, position, first, [best.sign * value for value in values])
            for row, position, first, values in best.entries(column)
        ]


class ExampleSampler:
    """Reads rows of `chats`; what it knows of a direction's strongest value stays from reading to reading.

    strongest: {(layer, side): the largest value so far of each direction}.
    """

    def __init__(
        self,
        model: nn.Module,
        chats: Chats,
        features: Features,
        *,
        n: int,
        width: int,
        seed: int,
        batch_size: int,
        progress: bool,
    ):
        self.model, self.chats, self.features = model, chats, features
        self.n, self.width, self.new = n, width, first_new(chats)
        self.how = {"batch_size": batch_size, "progress": progress}
        generator = torch.Generator().manual_seed(seed)
        self._tickets = torch.rand(len(chats), 3, generator=generator)
        self._shift: dict[Side, Tensor] = {}
        self.strongest: dict[Side, Tensor] = {}
        for layer in features.layers:
            for side in "+-" if features.signed else "+":
                k = len(features.indices(layer))
                # A row has another ticket for each direction: its own, turned around by the direction's.
                self._shift[layer, side] = torch.rand(2, k, generator=generator)
                self.strongest[layer, side] = torch.zeros(k)

    def read(
        self,
        rows: Int[Tensor, " rows"],
        likeness: WordSimilarity | None = None,
        towards: Mapping[Side, Float[Tensor, "terms k"]] | None = None,
    ) -> dict[Side, ExampleSample]:
        """One pass over `rows`: {(layer, side): Sample}.

        likeness, towards: what `hard` windows are to be like; without, there are none.
        """
        kept: dict[Side, ExampleSample] = {}
        for part in parts(self.model, _Rows(self.chats, rows), self.features, **self.how):
            row = rows[part.row]
            look = torch.stack([part.start + self.new[row].clamp(min=1), part.stop], 1)
            within = torch.stack([part.start + 1, part.stop], 1)  # first tokens are not even context
            places = Spans(row, part.start, look, within).where(look[:, 0] < look[:, 1])
            if not len(places.row):
                continue
            anywhere, tiles = self._anywhere(places), self._tiles(places) if likeness else None
            for columns, values in part.blocks(self.features):
                for key in [key for key in self.strongest if key[0] == part.layer]:
                    if key not in kept:
                        kept[key] = self._sample(key, values.device)
                    self._keep(kept[key], key, columns, values, places, anywhere)
                    if likeness:
                        alike = likeness.cosines(self._ids(tiles), towards[key][:, columns]).to(values)
                        self._keep_hard(kept[key], key, columns, values, tiles, alike)
        for key in self.strongest.keys() - kept.keys():  # no row had anything new
            kept[key] = self._sample(key, "cpu")
        return kept

    def _sample(self, key: Side, device: torch.device | str) -> ExampleSample:
        self.strongest[key] = self.strongest[key].to(device)
        k, sign = len(self.strongest[key]), SIGNS[key[1]]
        return ExampleSample(
            *(RunningTopK(k, size * self.n, self.width, sign, device) for size in (1, OVERSAMPLING, 1, 3))
        )

    def _keep(
        self, sample: ExampleSample, key: Side, columns: slice, values: Tensor, places, anywhere
    ) -> None:
        high = places.highest(values, SIGNS[key[1]])
        bar = torch.maximum(self.strongest[key][columns], high.amax(0))
        self.strongest[key][columns] = bar
        tickets = self._tickets[places.row, :2].T[..., None] + self._shift[key][:, None, columns]
        first, second = tickets.to(values.device) % 1
        sample.top.offer(columns, values, only(high > 0, high), places)
        sample.active.offer(columns, values, only(high > ACTIVE_SHARE * bar, first), places)
        still, quiet, share = self._still(anywhere.highest(values, SIGNS[key[1]]), bar)
        sample.quiet.offer(columns, values, only(still, torch.where(quiet, second, -share)), anywhere)

    def _keep_hard(
        self, sample: ExampleSample, key: Side, columns: slice, values: Tensor, tiles, alike
    ) -> None:
        still, quiet, _ = self._still(tiles.highest(values, SIGNS[key[1]]), self.strongest[key][columns])
        score = torch.where(quiet, alike, alike - 1)
        sample.hard.offer(columns, values, only(still & (alike > 0), score), tiles)

    def _still(self, high: Tensor, bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Does nothing in a window activate, is it quiet, and how high does it go, as a share of the bar?

        A latent is quiet where it does not fire at all. Projections are hardly ever zero for long, so where
        too few windows are quiet, the least active ones stand in.
        """
        if not self.features.signed:
            return high <= 0, high <= 0, high
        return high <= ACTIVE_SHARE * bar, high <= NON_ACTIVATING_SHARE * bar, high / bar.clamp(min=1e-30)

    def _anywhere(self, places: Spans) -> Spans:
        """One window at random of each place, without the first token of its row."""
        low = torch.maximum(places.start + 1, places.look[:, 0] - self.width + 1)
        span = (places.look[:, 1] - self.width - low + 1).clamp(min=1)
        first = low + (self._tickets[places.row, 2] * span).long().clamp(max=span - 1)
        window = torch.stack([first, torch.minimum(first + self.width, places.look[:, 1])], 1)
        return Spans(places.row, places.start, window, window)

    def _tiles(self, places: Spans) -> Spans:
        """All of each place in windows side by side; the last may overlap the one before it."""
        found = []
        for row, start, new, stop in zip(places.row, places.start, *places.look.T):
            for first in range(int(start) + 1, int(stop), self.width):
                first = max(int(start) + 1, min(first, int(stop) - self.width))
                if (last := min(first + self.width, int(stop))) > new:
                    found.append((int(row), int(start), first, last))
        row, start, first, last = torch.tensor(found).T
        window = torch.stack([first, last], 1)
        return Spans(row, start, window, window)

    def _ids(self, windows: Spans) -> list[list[int]]:
        spans = zip(windows.row.tolist(), windows.positions())
        return [self.chats[row].input_ids[first:last] for row, (first, last) in spans]


class _Rows(Chats):
    """Some rows of other chats."""

    def __init__(self, chats: Chats, rows: Int[Tensor, " rows"]):
        super().__init__(chats.tokenizer, [], source=chats.source)
        self.rows = [chats.rows[row] for row in rows.tolist()]
        self._examples = [chats[row] for row in rows.tolist()]
